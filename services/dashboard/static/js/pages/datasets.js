// The page of the user's datasets: upload, tokenisation, details, deletion, and links to train on a dataset.
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
  const canSubmit = maySubmit(useStore(session));
  const [live, setLive] = useState(false);
  const state = useLoad((signal) => get("api/datasets", signal), [], { every: live ? REFRESH_MS : 0 });
  const datasets = state.data?.datasets ?? [];
  useEffect(() => setLive(datasets.some((dataset) => dataset.status === "tokenising")), [state.data]);
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
        canSubmit
          ? html`<${DatasetUpload} known=${datasets.map((dataset) => dataset.name)} onDone=${state.reload} />`
          : html`<p class="message">
              Uploading needs a token:${" "}
              <button class="button small" onClick=${() => signInOpen.set(true)}>Sign in</button>
            </p>`
      }
      <div class="card flush">
        <${Loaded} state=${state} rows=${5}>
          ${() =>
            datasets.length
              ? html`<${Table} datasets=${datasets} canSubmit=${canSubmit} reload=${state.reload} />`
              : html`<${Empty} icon="datasets" title="No datasets yet">
                  <p>Upload a text to train on it. The built-in corpus <code>builtin:stories</code> needs no upload.</p>
                <//>`}
        <//>
      </div>
    </div>
  `;
}

/** @param {{datasets: Api.Dataset[], canSubmit: boolean, reload: () => void}} props */
function Table({ datasets, canSubmit, reload }) {
  const [open, setOpen] = useState(/** @type {string | null} */ (null));
  const [toDelete, setToDelete] = useState(/** @type {Api.Dataset | null} */ (null));
  const shown = datasets.find((dataset) => dataset.name === open);
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
          (dataset) =>
            html`<${Row}
              key=${dataset.name}
              dataset=${dataset}
              canSubmit=${canSubmit}
              reload=${reload}
              onOpen=${() => setOpen(dataset.name)}
              onDelete=${() => setToDelete(dataset)}
            />`,
        )}
      </tbody>
    </table>
    ${shown && html`<${Facts} dataset=${shown} onClose=${() => setOpen(null)} />`}
    ${
      toDelete &&
      html`<${Confirm}
        title=${`Delete ${toDelete.name}?`}
        text=${
          `This deletes ${bytes(toDelete.sizeBytes)} of text and its tokens. ` +
          "Models that were trained on it are kept."
        }
        action="Delete"
        danger
        act=${async () => {
          await remove(address(toDelete.name));
          toast(`Deleted ${toDelete.name}.`);
          reload();
        }}
        onClose=${() => setToDelete(null)}
      />`
    }
  </div>`;
}

/**
 * @param {{dataset: Api.Dataset, canSubmit: boolean, reload: () => void, onOpen: () => void,
 *   onDelete: () => void}} props
 */
function Row({ dataset, canSubmit, reload, onOpen, onDelete }) {
  return html`<tr class=${dataset.error ? "explained" : undefined}>
      <td class="name">
        <button class="link" onClick=${onOpen} aria-label=${`Details of ${dataset.name}`}>${dataset.name}</button>
        <span class="note narrow-only"
          >${bytes(dataset.sizeBytes)}${
            dataset.tokens ? ` · ${count(dataset.tokens, "token", dataset.tokens < 1e6 ? integer : compact)}` : ""
          }</span
        >
      </td>
      <td><${Status} status=${dataset.status} /><${Tokenising} dataset=${dataset} /></td>
      <td class="num wide">${integer(dataset.documents)}</td>
      <td class="num wide">${integer(dataset.tokens)}</td>
      <td class="num wide">${bytes(dataset.sizeBytes)}</td>
      <td class="num wide">${dataset.usedBy || "–"}</td>
      <td class="wide note nowrap"><${Time} at=${dataset.createdAt} /></td>
      <td>
        <div class="row end">
          ${
            canSubmit &&
            (dataset.status === "failed" || (dataset.status === "uploaded" && dataset.jobStatus !== "pending")) &&
            html`<${TokeniseAgain} dataset=${dataset} reload=${reload} />`
          }
          ${
            dataset.status !== "failed" &&
            html`<a class="button small" href=${href("/new", { type: "lm-training", data: dataset.name })}
              ><${Icon} name="play" />Train on it</a
            >`
          }
          ${
            canSubmit &&
            html`<button class="button small danger" aria-label=${`Delete ${dataset.name}`} onClick=${onDelete}>
              <${Icon} name="trash" />
            </button>`
          }
        </div>
      </td>
    </tr>
    ${
      dataset.error &&
      html`<tr class="explains">
        <td colspan="8">${dataset.error.message}</td>
      </tr>`
    }`;
}

/** @param {{dataset: Api.Dataset}} props */
function Tokenising({ dataset }) {
  const { step, totalSteps } = dataset.progress ?? {};
  if (dataset.status !== "tokenising" || !totalSteps || totalSteps <= 1) return null;
  const share = Math.min(1, (step ?? 0) / totalSteps);
  return html`<span class="progress-line">
    <span
      class="progress"
      role="progressbar"
      aria-label=${`Tokenising ${dataset.name}`}
      aria-valuemin="0"
      aria-valuemax="100"
      aria-valuenow=${Math.floor(share * 100)}
      ><span style=${{ width: `${share * 100}%` }}></span
    ></span>
    <span class="note">${integer(step)} of ${count(totalSteps, "document")}</span>
  </span>`;
}

/** @param {{dataset: Api.Dataset, reload: () => void}} props */
function TokeniseAgain({ dataset, reload }) {
  const [busy, setBusy] = useState(false);
  const submit = async () => {
    setBusy(true);
    try {
      await post("api/jobs", { type: "dataset", name: dataset.name, data: { source: dataset.name } });
      reload();
    } catch (error) {
      toast(error.message, "bad");
    }
    setBusy(false);
  };
  return html`<button class="button small" disabled=${busy} onClick=${submit}>Tokenise again</button>`;
}

/** @param {{dataset: Api.Dataset, onClose: () => void}} props */
function Facts({ dataset, onClose }) {
  const state = useLoad((signal) => get(address(dataset.name), signal), [dataset.name, dataset.status]);
  return html`<${Dialog} title=${dataset.name} onClose=${onClose}>
    <dl class="facts">
      <dt>In a configuration</dt>
      <dd class="mono">data.source: ${dataset.name}</dd>
      <dt>Status</dt>
      <dd>
        <${Status} status=${dataset.status} />${" "}
        ${dataset.experimentId && html`<a href=${experiment(dataset.experimentId)}>Job</a>`}
      </dd>
      <dt>Format</dt>
      <dd>${dataset.format}${dataset.format === "txt" ? "" : `, text in ${dataset.textField}`}</dd>
      <dt>Size</dt>
      <dd>${bytes(dataset.sizeBytes)}</dd>
      <dt>Documents</dt>
      <dd>${integer(dataset.documents)}</dd>
      <dt>Tokens</dt>
      <dd>
        ${integer(dataset.tokens)}${
          dataset.validationTokens ? `, ${integer(dataset.validationTokens)} for validation` : ""
        }
      </dd>
      <dt>SHA-256</dt>
      <dd class="mono">${dataset.sha256}</dd>
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
          : html`<p class="note">No experiment uses this dataset yet.</p>`}
    <//>
    <div class="dialog-foot"><button class="button" onClick=${onClose}>Close</button></div>
  <//>`;
}
