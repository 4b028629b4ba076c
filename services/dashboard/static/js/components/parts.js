// Small components that many pages use, such as status, progress, fields, tabs, and loading and error states.
import { html, useEffect, useId, useRef, useState } from "../lib/html.js";
import { findings, isTemporary, send } from "../lib/api.js";
import { href } from "../lib/router.js";
import { session } from "../lib/session.js";
import { createStore, useStore } from "../lib/store.js";
import { download } from "../charts/export.js";
import { Icon } from "./icons.js";
import { toast } from "./toasts.js";
import { hasEnded } from "../lib/job-signals.js";
import * as format from "../lib/format.js";

/** @type {Record<string, string>} */
const KINDS = {
  pending: "",
  provisioning: "active",
  starting: "active",
  running: "active",
  completing: "active",
  stopping: "warn",
  paused: "warn",
  stale: "warn",
  completed: "good",
  failed: "bad",
  cancelled: "",
  imported: "",
  uploaded: "",
  tokenising: "active",
  ready: "good",
};

/** @param {{status: string}} props */
export const Status = ({ status }) => html`<span class=${`status ${KINDS[status] ?? ""}`}>${status}</span>`;

/** @type {Record<string, string>} */
export const TYPES = {
  lm: "Language model",
  rl: "Controller",
  evaluation: "Evaluation",
  headroom: "Headroom",
  ablation: "Ablation",
  analysis: "Analysis",
  dataset: "Dataset",
  "lm-training": "Language model",
  "rl-training": "Controller",
};

/** @type {Record<string, string>} */
const COUNTED = { dataset: "document", rl: "transition", "rl-training": "transition" };

const WAITING_FOR_DISK = "waiting_for_disk";

/**
 * Returns the phase of a trainer as text. While the trainer waits for disk space, `disk` contains the free and the
 * needed space.
 *
 * @param {Api.LiveProgress} progress
 */
export function phaseText({ phase, disk }) {
  if (phase !== WAITING_FOR_DISK) return phase;
  if (!disk) return "waiting for disk space";
  if (disk.freeBytes >= disk.neededBytes) return `waiting: the disk rejects writes (${disk.reason})`;
  return `waiting for disk space: ${format.bytes(disk.freeBytes)} free, ${format.bytes(disk.neededBytes)} needed`;
}

/**
 * Returns true if the trainer waits for disk space in only one of the two states.
 *
 * @param {Api.LiveProgress | null} before
 * @param {Api.LiveProgress | null} after
 */
export const beganOrEndedWaiting = (before, after) =>
  (before?.phase === WAITING_FOR_DISK) !== (after?.phase === WAITING_FOR_DISK);

/**
 * Shows a progress bar and the step; before the first step, only the phase. `type` is the type of the job or
 * experiment. `ended` is the status of the job; if this status means that the job has ended, the bar is not shown.
 *
 * @param {{progress: Api.LiveProgress | null, type: string, quiet?: boolean, ended?: string}} props
 */
export function Progress({ progress, type, quiet = false, ended = "" }) {
  const over = hasEnded(ended);
  if (!progress || progress.step === null || progress.step === undefined) {
    return progress?.phase && !quiet ? html`<span class="note">${phaseText(progress)}</span>` : null;
  }
  const share = progress.totalSteps && !over ? Math.min(1, progress.step / progress.totalSteps) : null;
  const noun = COUNTED[type] ?? "step";
  const text =
    share === null
      ? format.count(progress.step, noun)
      : `${format.integer(progress.step)} of ${format.count(progress.totalSteps ?? 0, noun)}`;
  return html`<span class="progress-line">
    ${
      share !== null &&
      html`<span
        class="progress"
        role="progressbar"
        aria-valuemin="0"
        aria-valuemax="100"
        aria-valuenow=${Math.floor(share * 100)}
        aria-label="Progress"
        ><span style=${{ width: `${share * 100}%` }}></span
      ></span>`
    }
    <span class="note"
      >${text}${!quiet && !over && progress.phase ? html` · ${phaseText(progress)}` : ""}${
        !quiet && !over && progress.etaSeconds ? html` · ${format.duration(progress.etaSeconds)} left` : ""
      }</span
    >
  </span>`;
}

const minute = createStore(0);
setInterval(() => document.hidden || minute.set((count) => count + 1), 20_000);

/**
 * Shows how long ago a time was, and keeps this up to date. `show` is the function that formats the time. The tooltip
 * shows the exact time.
 *
 * @param {{at: string | null | undefined, show?: (iso: string) => string}} props
 */
export function Time({ at, show = format.ago }) {
  useStore(minute);
  return at ? html`<time datetime=${at} title=${format.exactly(at)}>${show(at)}</time>` : html`–`;
}

/**
 * Shows a button that downloads a file of the API. If the server requires a token for reading, the file is loaded into
 * memory first, because a link does not send the token.
 *
 * @param {{path: string, name: string, label: string, before?: () => Promise<unknown>, small?: boolean,
 * children?: Ui.Children}} props
 */
export function FileButton({ path, name, label, before, small, children }) {
  const { readsOpen } = useStore(session);
  const [busy, setBusy] = useState(false);
  const shown = html`<${Icon} name="download" />${children}`;
  const kind = `button ${small ? "small" : ""}`;
  if (readsOpen && !before) return html`<a class=${kind} href=${path} download aria-label=${label}>${shown}</a>`;
  const start = async () => {
    setBusy(true);
    try {
      await before?.();
      const reply = await send(path, { headers: { Accept: "*/*" } });
      download(
        await reply.blob(),
        /filename="?([^";]+)/.exec(reply.headers.get("Content-Disposition") ?? "")?.[1] ?? name,
      );
    } catch (error) {
      toast(error.message, "bad");
    }
    setBusy(false);
  };
  return html`<button type="button" class=${kind} disabled=${busy} aria-label=${label} onClick=${start}>
    ${shown}
  </button>`;
}

/** @param {{icon?: string, title: string, children?: Ui.Children}} props */
export const Empty = ({ icon = "empty", title, children }) =>
  html`<div class="state">
    <${Icon} name=${icon} />
    <h2>${title}</h2>
    ${children}
  </div>`;

/** @param {{error: Ui.Failure, retry?: () => void}} props */
export function Failed({ error, retry }) {
  const temporary = isTemporary(error);
  /** @type {Record<string, string>} */
  const headings = { 401: "Sign in to see this", 404: "Not found", undefined: "This page cannot be shown" };
  return html`<div class="state" role="alert">
    <${Icon} name="alert" />
    <h2>${temporary ? "The server does not answer" : (headings[String(error.status)] ?? "The request failed")}</h2>
    <p>
      ${
        error.status
          ? error.message
          : !temporary && `An error occurred: ${error.message}. Reload the page; if it fails again, report this text.`
      }
    </p>
    ${temporary && html`<p>The page continues automatically when the server answers again.</p>`}
    ${(error.status ?? 0) >= 500 && error.requestId && html`<p class="note">Request ${error.requestId}</p>`}
    <div class="row">
      ${retry && !temporary && error.status !== 404 && html`<button class="button" onClick=${retry}>Try again</button>`}
      ${!temporary && error.status !== 401 && html`<a class="button" href=${href("/")}>Go to the experiments</a>`}
    </div>
  </div>`;
}

/** @param {{rows?: number}} props */
export const Loading = ({ rows = 4 }) =>
  html`<div class="stack" role="status" aria-label="Loading">
    ${Array.from(
      { length: rows },
      (_, i) => html`<div class="skeleton" key=${i} style=${{ height: `${34 - (i % 2) * 8}px` }}></div>`,
    )}
  </div>`;

/**
 * Shows the result of `children` for the loaded data. Without data, shows a placeholder or the error. Earlier data
 * stays visible after an error.
 *
 * @template T
 * @param {{state: Ui.Load<T>, rows?: number, children: (data: T) => Ui.Children}} props
 */
export function Loaded({ state, rows, children }) {
  if (state.data !== null) return children(state.data);
  if (state.error) return html`<${Failed} error=${state.error} retry=${state.reload} />`;
  return html`<${Loading} rows=${rows} />`;
}

/**
 * Shows a labelled control. `children` is a function that returns the control. Its argument contains the attributes
 * that connect the control with label, hint and error.
 *
 * @param {{label: string, hint?: string, wrong?: string, children: (props: Ui.FieldProps) => Ui.Children}} props
 */
export function Field({ label, hint, wrong, children }) {
  const id = useId();
  const described = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ") || undefined;
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": described, "aria-invalid": wrong ? "true" : undefined })}
    ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
    ${wrong && html`<span class="wrong" id=${`${id}-wrong`}>${wrong}</span>`}
  </div>`;
}

/**
 * Shows tabs, which can be changed with the arrow keys. `tabs` is [[name, label], …].
 *
 * @param {{tabs: [name: string, text: string][], active: string, onChange: (name: string) => void,
 *   label: string}} props
 */
export function Tabs({ tabs, active, onChange, label }) {
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    // On a narrow screen, the tabs scroll sideways. `scrollIntoView` is not used, because it could also scroll the page
    // vertically.
    const strip = list.current;
    const chosen = strip?.querySelector('[aria-selected="true"]');
    if (!strip || !(chosen instanceof HTMLElement)) return;
    strip.scrollLeft = chosen.offsetLeft - (strip.clientWidth - chosen.offsetWidth) / 2;
  }, [active]);
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    const at = tabs.findIndex(([name]) => name === active);
    const next = (at + step + tabs.length) % tabs.length;
    onChange(tabs[next][0]);
    const tab = list.current?.children[next];
    if (tab instanceof HTMLElement) tab.focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${onKey}>
    ${tabs.map(
      ([name, text]) =>
        html`<button
          key=${name}
          role="tab"
          id=${`tab-${name}`}
          aria-controls="tab-panel"
          aria-selected=${name === active ? "true" : "false"}
          tabindex=${name === active ? 0 : -1}
          onClick=${() => name !== active && onChange(name)}
        >
          ${text}
        </button>`,
    )}
  </div>`;
}

/**
 * Shows the errors of a form that no field shows, and focuses the first field with an error. `found` assigns the errors
 * to fields.
 *
 * @param {{error: Ui.Failure | null, found?: Ui.Findings}} props
 */
export function Problems({ error, found = findings(error, []) }) {
  const here = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    const wrong = here.current?.closest("form")?.querySelector('[aria-invalid="true"]');
    if (wrong instanceof HTMLElement) wrong.focus();
  }, [error]);
  if (!error) return null;
  const { marked, rest } = found;
  return html`<div class="message bad" role="alert" ref=${here}>
    ${marked && html`<p>Some values are invalid. Their fields are marked.</p>`}
    ${
      rest.length > 1
        ? html`<ul>
            ${rest.map((text) => html`<li>${text}</li>`)}
          </ul>`
        : (rest[0] ?? (!marked && error.message))
    }
  </div>`;
}
