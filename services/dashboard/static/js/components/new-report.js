// The dialog that creates a report. The user chooses a template or an empty page, the experiments and the title.
import { html, useState } from "../lib/html.js";
import { findings, get, post, query } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, maySubmit, signInOpen } from "../lib/session.js";
import { go } from "../lib/router.js";
import { title as nameOf } from "../lib/format.js";
import { Dialog } from "./dialog.js";
import { Icon } from "./icons.js";
import { Field, Problems, TYPES } from "./parts.js";

/** @type {Record<string, string>} */
const NAMES = {
  "full-report": "Full report",
  "experiment-overview": "Overview",
  "rl-analysis": "Controller",
  "trajectory-report": "Trajectories",
  "": "Empty",
};
/** @param {string | null} pattern */
export const templateName = (pattern) => NAMES[pattern ?? ""] ?? pattern;
/** @type {Api.ReportTemplate[]} */
const ORDER = ["full-report", "experiment-overview", "rl-analysis", "trajectory-report"];
/** @type {(Api.ReportTemplate | "")[]} */
const CHOICES = [...ORDER, ""];
const MAX_EXPERIMENTS = 8;

/**
 * Shows a button that opens the dialog. `experiments` are selected initially.
 *
 * @param {{label?: string, primary?: boolean, experiments?: string[]}} props
 */
export function NewReport({ label = "New report", primary = false, experiments = [] }) {
  const canSubmit = maySubmit(useStore(session));
  const [open, setOpen] = useState(false);
  return html`
    <button
      class=${`button ${primary && canSubmit ? "primary" : ""}`}
      onClick=${() => (canSubmit ? setOpen(true) : signInOpen.set(true))}
    >
      <${Icon} name=${primary ? "plus" : "report"} />${label}
    </button>
    ${open && html`<${NewReportDialog} chosen=${experiments} onClose=${() => setOpen(false)} />`}
  `;
}

/**
 * @typedef {{pattern: Api.ReportTemplate | "", ids: string[], title: string}} Choices
 * @param {{chosen: string[], onClose: () => void}} props
 */
function NewReportDialog({ chosen, onClose }) {
  const known = useLoad((signal) => get("api/reports/patterns", signal), []);
  const list = useLoad((signal) => get(`api/experiments${query({ limit: 200 })}`, signal), []);
  const [form, setForm] = useState(/** @type {Choices} */ ({ pattern: ORDER[0], ids: chosen, title: "" }));
  const [state, setState] = useState(
    /** @type {{busy: boolean, error: Ui.Failure | null}} */ ({ busy: false, error: null }),
  );
  /** @param {Partial<Choices>} changes */
  const set = (changes) => setForm((old) => ({ ...old, ...changes }));
  const about = Object.fromEntries((known.data?.patterns ?? []).map((pattern) => [pattern.name, pattern.about]));
  const all = list.data?.experiments ?? [];
  /** @param {string} id */
  const named = (id) => all.find((experiment) => experiment.id === id) ?? { id };
  /** @type {Ui.Handler} */
  const add = (event) => {
    const id = event.target.value;
    event.target.value = "";
    if (id) set({ ids: [...form.ids, id] });
  };
  const found = findings(state.error, ["experimentIds", "title"]);
  /** @param {Ui.Event} event */
  const make = async (event) => {
    event.preventDefault();
    setState({ busy: true, error: null });
    const title = form.title.trim();
    try {
      const made = form.pattern
        ? await post("api/reports/generate", {
            pattern: form.pattern,
            experimentIds: form.ids,
            ...(title ? { title } : {}),
          })
        : await post("api/reports", { title: title || "Untitled report", markdown: "", experimentIds: form.ids });
      onClose();
      go(`/reports/${encodeURIComponent(made.id)}`, form.pattern ? {} : { mode: "edit" });
    } catch (error) {
      setState({ busy: false, error });
    }
  };
  return html`<${Dialog} title="New report" onClose=${onClose}>
    <form class="stack" onSubmit=${make}>
      <div class="kinds templates" role="radiogroup" aria-label="Report template">
        ${CHOICES.map(
          (name) =>
            html`<label class="kind" key=${name}>
              <input
                type="radio"
                name="pattern"
                value=${name}
                checked=${form.pattern === name}
                onChange=${() => set({ pattern: name })}
              />
              <span
                ><strong>${NAMES[name]}</strong><span class="note">${name ? about[name] : "Empty report."}</span></span
              >
            </label>`,
        )}
      </div>
      <${Field}
        label="Experiments"
        hint=${form.ids.length > 1 ? "The report begins with a comparison of the experiments." : undefined}
        wrong=${found.wrong("experimentIds")}
      >
        ${(props) =>
          html`<select ...${props} value="" disabled=${form.ids.length >= MAX_EXPERIMENTS} onChange=${add}>
            <option value="" selected>
              ${form.ids.length >= MAX_EXPERIMENTS ? `${MAX_EXPERIMENTS} at most` : "Add an experiment…"}
            </option>
            ${all
              .filter((experiment) => !form.ids.includes(experiment.id))
              .map(
                (experiment) =>
                  html`<option key=${experiment.id} value=${experiment.id}>
                    ${nameOf(experiment)} (${TYPES[experiment.type] ?? experiment.type}, ${experiment.status})
                  </option>`,
              )}
          </select>`}
      <//>
      ${
        form.ids.length > 0 &&
        html`<ul class="chips">
          ${form.ids.map(
            (id) =>
              html`<li class="tag" key=${id}>
                ${nameOf(named(id))}<button
                  type="button"
                  class="button quiet small"
                  aria-label=${`Remove ${nameOf(named(id))}`}
                  onClick=${() => set({ ids: form.ids.filter((other) => other !== id) })}
                >
                  <${Icon} name="cross" />
                </button>
              </li>`,
          )}
        </ul>`
      }
      <${Field}
        label="Title"
        hint=${form.pattern ? "If you leave this empty, the title names template and experiment" : undefined}
        wrong=${found.wrong("title")}
      >
        ${(props) =>
          html`<input
            ...${props}
            maxlength="200"
            value=${form.title}
            onInput=${(event) => set({ title: event.target.value })}
          />`}
      <//>
      <${Problems} error=${state.error} found=${found} />
      <div class="dialog-foot">
        <button type="button" class="button" onClick=${onClose}>Close</button>
        <button class="button primary" disabled=${state.busy || (form.pattern !== "" && !form.ids.length)}>
          ${state.busy ? "Creating…" : "Create report"}
        </button>
      </div>
    </form>
  <//>`;
}
