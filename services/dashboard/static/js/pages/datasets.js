// The datasets of the user: upload, tokenisation, details, deletion, and the link that trains on one.
import { html, useEffect, useState } from "../lib/html.js";
import { get, post, remove } from "../lib/api.js";
import { follow } from "../lib/sse.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, signInOpen, maySubmit } from "../lib/session.js";
import { href } from "../lib/router.js";
import { bytes, compact, count, integer, title } from "../lib/format.js";
import { DatasetUpload } from "../components/dataset-upload.js";
import { Confirm, Dialog } from "../components/dialog.js";
import { Icon } from "../components/icons.js";
import { Empty, Loaded, Status, TYPES, Time } from "../components/parts.js";
import { toast } from "../components/toasts.js";

const REFRESH_MS = 2500;
/**
 * @param {string} name
 * @returns {Api.DatasetPath}
 */
const address = (name) => `api/datasets/${encodeURIComponent(name)}`;
/** @param {string} id */
const experiment = (id) => href(`/experiments/${encodeURIComponent(id)}`);

export function Datasets() {
  const may = maySubmit(useStore(session));
  const [live, setLive] = useState(false);
  const state = useLoad((signal) => get("api/datasets", signal), [], { every: live ? REFRESH_MS : 0 });
  const datasets = state.data?.datasets ?? [];
  useEffect(() => setLive(datasets.some((one) => one.status === "tokenising")), [state.data]);
  useEffect(() => {
    let timer = 0;
    const stop = follow("api/jobs/stream", {
      onEvent(name, job) {
        if (name !== "reset" && !(name === "job-update" && job.type === "dataset")) return;
        clearTimeout(timer);
        timer = setTimeout(state.reload, 200);
      },
    });
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, []);
  return html`
    <div class="page-head">
      <div class="grow">
        <h1>Datasets</h1>
        <p class="sub">Your own texts. A configuration selects one with data.source.</p>
      </div>
    </div>
    <div class="stack">
      ${
        may
          ? html`<${DatasetUpload} known=${datasets.map((one) => one.name)} onDone=${state.reload} />`
          : html`<p class="message">
              Uploading needs a token:${" "}
              <button class="button small" onClick=${() => signInOpen.set(true)}>Sign in</button>
            </p>`
      }
      <div class="card flush">
        <${Loaded} state=${state} rows=${5}>
          ${() =>
            datasets.length
              ? html`<${Table} datasets=${datasets} may=${may} reload=${state.reload} />`
              : html`<${Empty} icon="datasets" title="No datasets yet">
                  <p>Upload a text to train on it. The built-in corpus <code>builtin:stories</code> needs no upload.</p>
                <//>`}
        <//>
      </div>
    </div>
  `;
}

/** @param {{datasets: Api.Dataset[], may: boolean, reload: () => void}} props */
function Table({ datasets, may, reload }) {
  const [open, setOpen] = useState(/** @type {string | null} */ (null));
  const [doomed, setDoomed] = useState(/** @type {Api.Dataset | null} */ (null));
  const shown = datasets.find((one) => one.name === open);
  return html`<div class="table-wrap">
    <table class="datasets">
      <thead>
        <tr>
          <th>Dataset</th>
          <th>Status</th>
          <th class="num wide">Documents</th>
          <th class="num wide">Tokens</th>
          <th class="num wide">Size</th>
          <th class="num wide">Used by</th>
          <th class="wide">Uploaded</th>
          <th><span class="visually-hidden">Actions</span></th>
        </tr>
      </thead>
      <tbody>
        ${datasets.map(
          (one) =>
            html`<${Row}
              key=${one.name}
              one=${one}
              may=${may}
              reload=${reload}
              onOpen=${() => setOpen(one.name)}
              onDelete=${() => setDoomed(one)}
            />`,
        )}
      </tbody>
    </table>
    ${shown && html`<${Facts} one=${shown} onClose=${() => setOpen(null)} />`}
    ${
      doomed &&
      html`<${Confirm}
        title=${`Delete ${doomed.name}?`}
        text=${
          `This deletes ${bytes(doomed.sizeBytes)} of text and its tokens. ` + "Models that were trained on it stay."
        }
        action="Delete"
        danger
        act=${async () => {
          await remove(address(doomed.name));
          toast(`Deleted ${doomed.name}.`);
          reload();
        }}
        onClose=${() => setDoomed(null)}
      />`
    }
  </div>`;
}

/** @param {{one: Api.Dataset, may: boolean, reload: () => void, onOpen: () => void, onDelete: () => void}} props */
function Row({ one, may, reload, onOpen, onDelete }) {
  return html`<tr class=${one.error ? "explained" : undefined}>
      <td class="name">
        <button class="link" onClick=${onOpen} aria-label=${`Details of ${one.name}`}>${one.name}</button>
        <span class="note narrow-only"
          >${bytes(one.sizeBytes)}${
            one.tokens ? ` · ${count(one.tokens, "token", one.tokens < 1e6 ? integer : compact)}` : ""
          }</span
        >
      </td>
      <td><${Status} status=${one.status} /><${Tokenising} one=${one} /></td>
      <td class="num wide">${integer(one.documents)}</td>
      <td class="num wide">${integer(one.tokens)}</td>
      <td class="num wide">${bytes(one.sizeBytes)}</td>
      <td class="num wide">${one.usedBy || "–"}</td>
      <td class="wide note nowrap"><${Time} at=${one.createdAt} /></td>
      <td>
        <div class="row end">
          ${
            may &&
            (one.status === "failed" || (one.status === "uploaded" && one.jobStatus !== "pending")) &&
            html`<${TokeniseAgain} one=${one} reload=${reload} />`
          }
          ${
            one.status !== "failed" &&
            html`<a class="button small" href=${href("/new", { type: "lm-training", data: one.name })}
              ><${Icon} name="play" />Train on it</a
            >`
          }
          ${
            may &&
            html`<button class="button small danger" aria-label=${`Delete ${one.name}`} onClick=${onDelete}>
              <${Icon} name="trash" />
            </button>`
          }
        </div>
      </td>
    </tr>
    ${
      one.error &&
      html`<tr class="explains">
        <td colspan="8">${one.error.message}</td>
      </tr>`
    }`;
}

/** @param {{one: Api.Dataset}} props */
function Tokenising({ one }) {
  const { step, totalSteps } = one.progress ?? {};
  if (one.status !== "tokenising" || !totalSteps || totalSteps <= 1) return null;
  const share = Math.min(1, (step ?? 0) / totalSteps);
  return html`<span class="progress-line">
    <span
      class="progress"
      role="progressbar"
      aria-label=${`Tokenising ${one.name}`}
      aria-valuemin="0"
      aria-valuemax="100"
      aria-valuenow=${Math.floor(share * 100)}
      ><span style=${{ width: `${share * 100}%` }}></span
    ></span>
    <span class="note">${integer(step)} of ${count(totalSteps, "document")}</span>
  </span>`;
}

/** @param {{one: Api.Dataset, reload: () => void}} props */
function TokeniseAgain({ one, reload }) {
  const [busy, setBusy] = useState(false);
  const submit = async () => {
    setBusy(true);
    try {
      await post("api/jobs", { type: "dataset", name: one.name, data: { source: one.name } });
      reload();
    } catch (error) {
      toast(error.message, "bad");
    }
    setBusy(false);
  };
  return html`<button class="button small" disabled=${busy} onClick=${submit}>Tokenise again</button>`;
}

/** @param {{one: Api.Dataset, onClose: () => void}} props */
function Facts({ one, onClose }) {
  const state = useLoad((signal) => get(address(one.name), signal), [one.name, one.status]);
  return html`<${Dialog} title=${one.name} onClose=${onClose}>
    <dl class="facts">
      <dt>In a configuration</dt>
      <dd class="mono">data.source: ${one.name}</dd>
      <dt>Status</dt>
      <dd>
        <${Status} status=${one.status} />${" "}
        ${one.experimentId && html`<a href=${experiment(one.experimentId)}>Job</a>`}
      </dd>
      <dt>Format</dt>
      <dd>${one.format}${one.format === "txt" ? "" : `, text in ${one.textField}`}</dd>
      <dt>Size</dt>
      <dd>${bytes(one.sizeBytes)}</dd>
      <dt>Documents</dt>
      <dd>${integer(one.documents)}</dd>
      <dt>Tokens</dt>
      <dd>${integer(one.tokens)}${one.validationTokens ? `, ${integer(one.validationTokens)} for validation` : ""}</dd>
      <dt>SHA-256</dt>
      <dd class="mono">${one.sha256}</dd>
    </dl>
    <h3 class="above">Used by</h3>
    <${Loaded} state=${state} rows=${2}>
      ${(/** @type {Ui.Data<typeof state>} */ { uses }) =>
        uses.length
          ? html`<ul class="saved stack tight">
              ${uses.map(
                (use) =>
                  html`<li key=${use.jobId}>
                    <a href=${experiment(use.experimentId)} onClick=${onClose}
                      >${title({ ...use, id: use.experimentId })}</a
                    ><span class="note">${TYPES[use.type] ?? use.type}</span><${Status} status=${use.status} />
                  </li>`,
              )}
            </ul>`
          : html`<p class="note">No experiment uses it yet.</p>`}
    <//>
    <div class="dialog-foot"><button class="button" onClick=${onClose}>Close</button></div>
  <//>`;
}
