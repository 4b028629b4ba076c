// Edits the name, tags and notes of an experiment, and deletes it.
import { html, useState } from "../lib/html.js";
import { findings, patch, remove } from "../lib/api.js";
import { go } from "../lib/router.js";
import { useStore } from "../lib/store.js";
import { session, maySubmit } from "../lib/session.js";
import { title } from "../lib/format.js";
import { Confirm, Dialog } from "./dialog.js";
import { Icon } from "./icons.js";
import { Field, Problems } from "./parts.js";
import { toast } from "./toasts.js";

const DELETION =
  "This also deletes its metrics, logs, checkpoints, results and saved analyses. Reports about it are kept. " +
  "This cannot be undone.";

/**
 * Shows the buttons for the actions that the user may perform. `ended` means that the job of the experiment has ended,
 * so that the experiment can be deleted.
 *
 * @param {{found: Api.Experiment, path: Api.ExperimentPath, ended: boolean,
 * onChanged: (found: Api.Experiment) => void}} props
 */
export function ExperimentActions({ found, path, ended, onChanged }) {
  const canSubmit = maySubmit(useStore(session));
  const [open, setOpen] = useState("");
  if (!canSubmit) return null;
  const close = () => setOpen("");
  return html`
    <button class="button" onClick=${() => setOpen("edit")}><${Icon} name="edit" />Edit</button>
    ${
      ended &&
      html`<button class="button danger" onClick=${() => setOpen("delete")}><${Icon} name="trash" />Delete</button>`
    }
    ${open === "edit" && html`<${Edit} found=${found} path=${path} onChanged=${onChanged} onClose=${close} />`}
    ${
      open === "delete" &&
      html`<${Confirm}
        title=${`Delete ${title(found)}?`}
        text=${DELETION}
        action="Delete"
        danger
        act=${async () => {
          await remove(path);
          toast(`Deleted ${title(found)}.`);
          go("/");
        }}
        onClose=${close}
      />`
    }
  `;
}

/**
 * @param {{found: Api.Experiment, path: Api.ExperimentPath, onChanged: (found: Api.Experiment) => void,
 * onClose: () => void}} props
 */
function Edit({ found, path, onChanged, onClose }) {
  const [form, setForm] = useState({ name: found.name ?? "", tags: found.tags.join(", "), notes: found.notes ?? "" });
  const [problem, setProblem] = useState(/** @type {Ui.Failure | null} */ (null));
  /** @type {(name: string) => Ui.Handler} */
  const set = (name) => (event) => setForm((old) => ({ ...old, [name]: event.target.value }));
  const marks = findings(problem, ["name", "tags", "notes"]);
  /** @param {Ui.Event} event */
  const save = async (event) => {
    event.preventDefault();
    const tags = form.tags
      .split(",")
      .map((tag) => tag.trim())
      .filter(Boolean);
    try {
      onChanged(await patch(path, { name: form.name.trim() || null, tags, notes: form.notes || null }));
      onClose();
    } catch (error) {
      setProblem(error);
    }
  };
  return html`<${Dialog} title="Name, tags, notes" onClose=${onClose}>
    <form class="stack" onSubmit=${save}>
      <${Field} label="Name" wrong=${marks.wrong("name")}
        >${(props) => html`<input ...${props} maxlength="200" value=${form.name} onInput=${set("name")} />`}<//
      >
      <${Field} label="Tags" hint="Separated by commas" wrong=${marks.wrong("tags")}
        >${(props) => html`<input ...${props} value=${form.tags} onInput=${set("tags")} />`}<//
      >
      <${Field} label="Notes" wrong=${marks.wrong("notes")}
        >${(props) => html`<textarea ...${props} rows="5" value=${form.notes} onInput=${set("notes")}></textarea>`}<//
      >
      <${Problems} error=${problem} found=${marks} />
      <div class="dialog-foot">
        <button type="button" class="button" onClick=${onClose}>Close</button>
        <button class="button primary">Save</button>
      </div>
    </form>
  <//>`;
}
