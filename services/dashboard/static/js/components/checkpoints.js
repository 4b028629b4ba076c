// Lists the checkpoints of an experiment with buttons to generate, train a controller, download and delete.
import { html, useState } from "../lib/html.js";
import { remove } from "../lib/api.js";
import { useStore } from "../lib/store.js";
import { session, maySubmit } from "../lib/session.js";
import { href } from "../lib/router.js";
import { bytes, integer } from "../lib/format.js";
import { Confirm } from "./dialog.js";
import { FileButton, Time } from "./parts.js";
import { Icon } from "./icons.js";

/**
 * Lists checkpoints. `onDeleted` is called after a checkpoint was deleted.
 *
 * @param {{checkpoints: Api.Checkpoint[], onDeleted: () => void}} props
 */
export function CheckpointTable({ checkpoints, onDeleted }) {
  const canSubmit = maySubmit(useStore(session));
  const [toDelete, setToDelete] = useState(/** @type {Api.Checkpoint | null} */ (null));
  /**
   * @param {Api.Checkpoint} checkpoint
   * @returns {Api.CheckpointPath}
   */
  const address = (checkpoint) =>
    `api/experiments/${checkpoint.reference.split("/")[0]}/checkpoints/${checkpoint.name
      .split("/")
      .map(encodeURIComponent)
      .join("/")}`;
  return html`<div class="table-wrap">
    <table class="checkpoints">
      <thead>
        <tr>
          <th>Checkpoint</th>
          <th>Kind</th>
          <th class="num">Step</th>
          <th class="num">Size</th>
          <th class="wide">Written</th>
          <th><span class="visually-hidden">Actions</span></th>
        </tr>
      </thead>
      <tbody>
        ${checkpoints.map(
          (checkpoint) =>
            html`<tr key=${checkpoint.reference}>
              <td class="mono">${checkpoint.name} ${checkpoint.best && html`<span class="status good">best</span>`}</td>
              <td>${checkpoint.kind}</td>
              <td class="num step">${integer(checkpoint.step)}</td>
              <td class="num">${bytes(checkpoint.sizeBytes)}</td>
              <td class="wide note"><${Time} at=${checkpoint.createdAt} /></td>
              <td>
                <${Actions} checkpoint=${checkpoint} onDelete=${canSubmit ? () => setToDelete(checkpoint) : null} />
              </td>
            </tr>`,
        )}
      </tbody>
    </table>
    ${
      toDelete &&
      html`<${Confirm}
        title=${`Delete ${toDelete.name}?`}
        text=${`This frees ${bytes(toDelete.sizeBytes)} of disk space. ${consequence(toDelete)}`}
        action="Delete"
        danger
        act=${async () => {
          await remove(address(toDelete));
          onDeleted();
        }}
        onClose=${() => setToDelete(null)}
      />`
    }
  </div>`;
}

/** @param {Api.Checkpoint} checkpoint */
const consequence = ({ kind }) =>
  kind === "training" ? "The job can then be resumed only from the other checkpoints." : "This cannot be undone.";

/** @param {{checkpoint: Api.Checkpoint, onDelete: (() => void) | null}} props */
function Actions({ checkpoint, onDelete }) {
  return html`<div class="row end">
    ${
      checkpoint.usableAsBase &&
      html`<a class="button small" href=${href("/playground", { checkpoint: checkpoint.reference })}
        ><${Icon} name="play" />Generate</a
      >`
    }
    ${
      checkpoint.usableAsPolicy &&
      html`<a class="button small" href=${href("/playground", { policy: checkpoint.reference })}
        ><${Icon} name="play" />Generate</a
      >`
    }
    ${
      checkpoint.usableAsBase &&
      html`<a class="button small" href=${href("/new", { type: "rl-training", checkpoint: checkpoint.reference })}
        >Train a controller</a
      >`
    }
    ${
      checkpoint.usableAsBase &&
      html`<a class="button small" href=${href("/new", { type: "lm-training", checkpoint: checkpoint.reference })}
        >Fine-tune</a
      >`
    }
    <${FileButton}
      small
      path=${checkpoint.download}
      name=${checkpoint.name.split("/").at(-1)}
      label=${`Download ${checkpoint.name}`}
    />
    ${
      onDelete &&
      html`<button class="button small danger" aria-label=${`Delete ${checkpoint.name}`} onClick=${onDelete}>
        <${Icon} name="trash" />
      </button>`
    }
  </div>`;
}
