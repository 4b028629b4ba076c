// The checkpoints of an experiment, with actions: generate, train a controller, download, delete.
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
  const may = maySubmit(useStore(session));
  const [doomed, setDoomed] = useState(/** @type {Api.Checkpoint | null} */ (null));
  /**
   * @param {Api.Checkpoint} one
   * @returns {Api.CheckpointPath}
   */
  const address = (one) =>
    `api/experiments/${one.reference.split("/")[0]}/checkpoints/${one.name
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
          (one) =>
            html`<tr key=${one.reference}>
              <td class="mono">${one.name} ${one.best && html`<span class="status good">best</span>`}</td>
              <td>${one.kind}</td>
              <td class="num step">${integer(one.step)}</td>
              <td class="num">${bytes(one.sizeBytes)}</td>
              <td class="wide note"><${Time} at=${one.createdAt} /></td>
              <td><${Actions} one=${one} onDelete=${may ? () => setDoomed(one) : null} /></td>
            </tr>`,
        )}
      </tbody>
    </table>
    ${
      doomed &&
      html`<${Confirm}
        title=${`Delete ${doomed.name}?`}
        text=${`This frees ${bytes(doomed.sizeBytes)} of disk space. ${consequence(doomed)}`}
        action="Delete"
        danger
        act=${async () => {
          await remove(address(doomed));
          onDeleted();
        }}
        onClose=${() => setDoomed(null)}
      />`
    }
  </div>`;
}

/** @param {Api.Checkpoint} checkpoint */
const consequence = ({ kind }) =>
  kind === "training" ? "The job can then be resumed only from the other checkpoints." : "This cannot be undone.";

/** @param {{one: Api.Checkpoint, onDelete: (() => void) | null}} props */
function Actions({ one, onDelete }) {
  return html`<div class="row end">
    ${
      one.usableAsBase &&
      html`<a class="button small" href=${href("/playground", { checkpoint: one.reference })}
        ><${Icon} name="play" />Generate</a
      >`
    }
    ${
      one.usableAsPolicy &&
      html`<a class="button small" href=${href("/playground", { policy: one.reference })}
        ><${Icon} name="play" />Generate</a
      >`
    }
    ${
      one.usableAsBase &&
      html`<a class="button small" href=${href("/new", { type: "rl-training", checkpoint: one.reference })}
        >Train a controller</a
      >`
    }
    <${FileButton} small path=${one.download} name=${one.name.split("/").at(-1)} label=${`Download ${one.name}`} />
    ${
      onDelete &&
      html`<button class="button small danger" aria-label=${`Delete ${one.name}`} onClick=${onDelete}>
        <${Icon} name="trash" />
      </button>`
    }
  </div>`;
}
