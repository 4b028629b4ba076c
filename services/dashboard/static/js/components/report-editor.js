// Writing a report: title and Markdown on one side, what becomes of them on the other; below 1080 px one after the
// other.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { findings, post } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { signInOpen } from "../lib/session.js";
import { Dialog } from "./dialog.js";
import { Icon } from "./icons.js";
import { Failed, Field, Loading, Problems, Time } from "./parts.js";
import { ReportBody } from "./report-body.js";

const PREVIEW_MS = 350;
const BLOCK =
  '\n```chart\n{"experiments": ["EXPERIMENT"], "metrics": ["Losses/Total", "Losses/Validation"], ' +
  '"title": "Loss"}\n```\n';
/** @type {Record<Ui.DraftState["state"], [kind: string, text: string]>} */
const WORDS = {
  saved: ["good", "Saved"],
  waiting: ["active", "Saving soon"],
  saving: ["active", "Saving"],
  offline: ["warn", "Not saved: the server does not answer. Trying again."],
  "signed-out": ["warn", "Not saved: sign in again"],
  conflict: ["bad", "Not saved: changed elsewhere"],
  refused: ["bad", "Not saved: see below"],
};

/**
 * Shows the state of saving, also to screen readers; outside the editor only errors.
 *
 * @param {{now: Ui.DraftState, shown: boolean}} props
 */
export function SaveState({ now, shown }) {
  const [kind, text] = WORDS[now.state];
  return html`<span role="status"
    >${(shown || now.state !== "saved") && html`<span class=${`status save-state ${kind}`}>${text}</span>`}</span
  >`;
}

/** @param {{draft: import("../lib/autosave.js").Draft, now: Ui.DraftState}} props */
export function ReportEditor({ draft, now }) {
  const [side, setSide] = useState("write");
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const insert = () => {
    const text = /** @type {HTMLTextAreaElement} */ (area.current);
    const begin = text.selectionStart + BLOCK.indexOf("EXPERIMENT");
    text.setRangeText(BLOCK, text.selectionStart, text.selectionStart);
    draft.change({ markdown: text.value });
    text.focus();
    text.setSelectionRange(begin, begin + "EXPERIMENT".length); // what is typed next goes there
  };
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    if (event.key !== "s" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    void draft.save();
  };
  const found = findings(now.error, ["title", "markdown"]);
  return html`
    ${now.state === "conflict" && now.theirs && html`<${Conflict} draft=${draft} theirs=${now.theirs} />`}
    ${
      now.state === "signed-out" &&
      html`<p class="message warn row apart">
        <span>Your text is kept here. Sign in to save it.</span
        ><button class="button small" onClick=${() => signInOpen.set(true)}>Sign in</button>
      </p>`
    }
    ${now.state === "refused" && html`<${Problems} error=${now.error} found=${found} />`}
    <div class="sides row" role="group" aria-label="Side">
      ${["write", "preview"].map(
        (name) =>
          html`<button key=${name} class="button small" aria-pressed=${side === name} onClick=${() => setSide(name)}>
            ${name === "write" ? "Write" : "Preview"}
          </button>`,
      )}
    </div>
    <div class=${`editor ${side}`} onKeyDown=${onKey}>
      <div class="stack writing">
        <${Field} label="Title" wrong=${found.wrong("title")}
          >${(props) =>
            html`<input
              ...${props}
              maxlength="200"
              required
              value=${now.title}
              onInput=${(event) => draft.change({ title: event.target.value })}
            />`}<//
        >
        <${Field}
          label="Text"
          hint="Markdown with tables. A chart is a block of its own; raw HTML is shown as text."
          wrong=${found.wrong("markdown")}
        >
          ${(props) =>
            html`<textarea
              ...${props}
              ref=${area}
              class="mono source"
              spellcheck="true"
              rows="26"
              value=${now.markdown}
              onInput=${(event) => draft.change({ markdown: event.target.value })}
            ></textarea>`}
        <//>
        <p class="row">
          <button class="button small" onClick=${insert}><${Icon} name="analysis" />Insert a chart</button>
        </p>
      </div>
      <section class="previewing" aria-label="Preview"><${Preview} markdown=${now.markdown} /></section>
    </div>
  `;
}

/** @param {{markdown: string}} props */
function Preview({ markdown }) {
  const [text, setText] = useState(markdown);
  useEffect(() => {
    const timer = setTimeout(() => setText(markdown), PREVIEW_MS);
    return () => clearTimeout(timer);
  }, [markdown]);
  const state = useLoad(() => post("api/reports/render", { markdown: text }), [text]);
  if (state.data) return html`<${ReportBody} parts=${state.data.parts} empty="Write something; it appears here." />`;
  return state.error ? html`<${Failed} error=${state.error} retry=${state.reload} />` : html`<${Loading} rows=${6} />`;
}

/** @param {{draft: import("../lib/autosave.js").Draft, theirs: Api.Report}} props */
function Conflict({ draft, theirs }) {
  const [open, setOpen] = useState(false);
  return html`<div class="message warn stack tight" role="alert">
    <p>
      <strong>Somebody saved this report <${Time} at=${theirs.updatedAt} />, while you were writing.</strong> Your text
      is kept here and is not saved until you decide.
    </p>
    <div class="row">
      <button class="button small" onClick=${() => setOpen(true)}>See what they wrote</button>
      <button class="button small" onClick=${() => draft.take(false)}>Take theirs</button>
      <button class="button small" onClick=${() => draft.take(true)}>Keep mine instead</button>
    </div>
    ${
      open &&
      html`<${Dialog} title=${theirs.title} onClose=${() => setOpen(false)}>
        <pre class="mono theirs" tabindex="0">${theirs.markdown}</pre>
        <div class="dialog-foot"><button class="button" onClick=${() => setOpen(false)}>Close</button></div>
      <//>`
    }
  </div>`;
}
