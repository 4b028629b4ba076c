// The page of one report: the rendered text, the editor with automatic saving, and buttons to export and delete the
// report.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { get, post, remove } from "../lib/api.js";
import { createDraft } from "../lib/autosave.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, maySubmit, signInOpen } from "../lib/session.js";
import { go, href, route, setParams, useTitle } from "../lib/router.js";
import { Confirm } from "../components/dialog.js";
import { Icon } from "../components/icons.js";
import { FileButton, Loaded, Time } from "../components/parts.js";
import { ReportBody } from "../components/report-body.js";
import { ReportEditor, SaveState } from "../components/report-editor.js";
import { toast } from "../components/toasts.js";
import { templateName } from "../components/new-report.js";
import { About } from "./reports.js";

/** @param {{id: string}} props */
export function Report({ id }) {
  /** @type {Api.ReportPath} */
  const path = `api/reports/${encodeURIComponent(id)}`;
  const state = useLoad((signal) => get(path, signal), [id]);
  return html`<${Loaded} state=${state} rows=${8}
    >${(found) => html`<${View} key=${id} found=${found} path=${path} />`}<//
  >`;
}

/** @param {{found: Api.Report, path: Api.ReportPath}} props */
function View({ found, path }) {
  const canSubmit = maySubmit(useStore(session));
  const { params } = useStore(route);
  const draft = useMemo(() => createDraft(path, found), [path]);
  const now = useStore(draft.now);
  useTitle(now.title, "Report");
  const [asking, setAsking] = useState(false);
  const editing = params.get("mode") === "edit" && canSubmit;
  useEffect(() => {
    /** @param {BeforeUnloadEvent} event */
    const ask = (event) => draft.unsaved() && event.preventDefault();
    window.addEventListener("beforeunload", ask);
    draft.attach();
    return () => {
      window.removeEventListener("beforeunload", ask);
      void draft.close();
    };
  }, [draft]);
  const toggle = () => {
    if (!canSubmit) return signInOpen.set(true);
    if (editing) void draft.save();
    return setParams({ mode: editing ? "" : "edit" });
  };
  return html`
    <div class="page-head">
      <div class="grow">
        <p class="sub">
          <a href=${href("/reports")}>Reports</a> / ${found.pattern ? templateName(found.pattern) : "Manual"}
        </p>
        <h1>${now.title || "Untitled"}</h1>
        <p class="sub row">
          <span>changed <${Time} at=${now.savedAt} /></span>${
            found.experimentIds.length > 0 && html`<span>about</span><${About} ids=${found.experimentIds} max=${4} />`
          }
        </p>
      </div>
      <${SaveState} now=${now} shown=${editing} />
      <button class=${`button ${editing ? "primary" : ""}`} onClick=${toggle}>
        <${Icon} name=${editing ? "finish" : "edit"} />${editing ? "Done" : "Edit"}
      </button>
      <${Export} path=${path} draft=${draft} />
      ${
        canSubmit &&
        html`<button class="button danger" onClick=${() => setAsking(true)}><${Icon} name="trash" />Delete</button>`
      }
    </div>
    ${
      editing
        ? html`<${ReportEditor} draft=${draft} now=${now} />`
        : html`<${Reading} path=${path} markdown=${now.markdown} canSubmit=${canSubmit} />`
    }
    ${
      asking &&
      html`<${Confirm}
        title=${`Delete ${now.title}?`}
        text="The experiments of the report are kept. This cannot be undone."
        action="Delete"
        danger
        act=${async () => {
          await remove(path);
          toast(`Deleted ${now.title}.`);
          go("/reports");
        }}
        onClose=${() => setAsking(false)}
      />`
    }
  `;
}

/**
 * Shows the rendered report. A user who may edit the report sees the current text, even if it is not saved.
 *
 * @param {{path: Api.ReportPath, markdown: string, canSubmit: boolean}} props
 */
function Reading({ path, markdown, canSubmit }) {
  const state = useLoad(
    (signal) => (canSubmit ? post("api/reports/render", { markdown }) : get(`${path}/rendered`, signal)),
    [markdown, canSubmit],
  );
  return html`<${Loaded} state=${state} rows=${8}
    >${(/** @type {Ui.Data<typeof state>} */ { parts }) => html`<${ReportBody} parts=${parts} />`}<//
  >`;
}

/**
 * Shows buttons that download the saved report.
 *
 * @param {{path: Api.ReportPath, draft: import("../lib/autosave.js").Draft}} props
 */
const Export = ({ path, draft }) =>
  [
    ["html", "HTML"],
    ["md", "Markdown"],
  ].map(
    ([format, text]) =>
      html`<${FileButton}
        key=${format}
        path=${`${path}/export?format=${format}`}
        name=${`report.${format}`}
        label=${`Export as ${text}`}
        before=${draft.save}
        >${text}<//
      >`,
  );
