// The editor of a report, with title and Markdown text on one side and the preview on the other. On a screen narrower
// than 1080 px, only one side is visible, and the user switches between them.
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
const STATE_TEXTS = {
  saved: ["good", "Saved"],
  waiting: ["active", "Not saved yet"],
  saving: ["active", "Saving …"],
  offline: ["warn", "Not saved: the server does not answer. Trying again."],
  "signed-out": ["warn", "Not saved: sign in again"],
  conflict: ["bad", "Not saved: changed by another user"],
  refused: ["bad", "Not saved: see below"],
};

/**
 * Shows whether the report is saved, and announces it to screen readers. If `shown` is false, the state "saved" is
 * hidden.
 *
 * @param {{now: Ui.DraftState, shown: boolean}} props
 */
export function SaveState({ now, shown }) {
  const [kind, text] = STATE_TEXTS[now.state];
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
    text.setSelectionRange(begin, begin + "EXPERIMENT".length); // so that typing replaces the placeholder
  };
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    if (event.key !== "s" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    void draft.save();
  };
  const found = findings(now.error, ["title", "markdown"]);
  return html`
    ${now.state === "conflict" && now.stored && html`<${Conflict} draft=${draft} stored=${now.stored} />`}
    ${
      now.state === "signed-out" &&
      html`<p class="message warn row apart">
        <span>Your text is kept in this tab. Sign in to save it.</span
        ><button class="button small" onClick=${() => signInOpen.set(true)}>Sign in</button>
      </p>`
    }
    ${now.state === "refused" && html`<${Problems} error=${now.error} found=${found} />`}
    <div class="sides row" role="group" aria-label="View">
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
          hint="Markdown with tables. Charts are fenced code blocks. HTML tags are shown as text."
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
  if (state.data) return html`<${ReportBody} parts=${state.data.parts} empty="The preview appears here." />`;
  return state.error ? html`<${Failed} error=${state.error} retry=${state.reload} />` : html`<${Loading} rows=${6} />`;
}

/** @param {{draft: import("../lib/autosave.js").Draft, stored: Api.Report}} props */
function Conflict({ draft, stored }) {
  const [open, setOpen] = useState(false);
  return html`<div class="message warn stack tight" role="alert">
    <p>
      <strong>Another user saved this report <${Time} at=${stored.updatedAt} />, while you edited it.</strong> Your text
      is kept in this tab. Choose which version to keep.
    </p>
    <div class="row">
      <button class="button small" onClick=${() => setOpen(true)}>Show their version</button>
      <button class="button small" onClick=${() => draft.resolve(false)}>Use their version</button>
      <button class="button small" onClick=${() => draft.resolve(true)}>Save my version</button>
    </div>
    ${
      open &&
      html`<${Dialog} title=${stored.title} onClose=${() => setOpen(false)}>
        <pre class="mono stored-text" tabindex="0">${stored.markdown}</pre>
        <div class="dialog-foot"><button class="button" onClick=${() => setOpen(false)}>Close</button></div>
      <//>`
    }
  </div>`;
}
