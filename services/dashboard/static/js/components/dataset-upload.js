// The part of the datasets page that uploads a file: file chooser, form for name and format, and progress display.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { findings } from "../lib/api.js";
import { useStore } from "../lib/store.js";
import { cancel, start, upload } from "../lib/upload.js";
import { bytes, duration, percent } from "../lib/format.js";
import { Icon } from "./icons.js";
import { Field, Problems } from "./parts.js";
import { toast } from "./toasts.js";

const FORMATS = { txt: "Text", jsonl: "JSON Lines", parquet: "Parquet" };
const SUFFIX = /\.(txt|jsonl|parquet)$/i;
const MAX_NAME = 64;

/**
 * Returns the name and the format of a dataset, derived from the name of its file.
 *
 * @param {string} fileName
 */
export function guess(fileName) {
  const plain = fileName.replace(/\.gz$/i, "");
  const format = SUFFIX.exec(plain)?.[1].toLowerCase() ?? "txt";
  const ascii = plain
    .replace(SUFFIX, "")
    .normalize("NFKD")
    .replace(/\P{ASCII}/gu, "");
  const name = ascii
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+|[._-]+$/g, "")
    .slice(0, MAX_NAME);
  return { name: name || "my-text", format, textField: "text" };
}

/**
 * Uploads a dataset. `known` are the names of the existing datasets. `onDone` is called after a successful upload.
 *
 * @param {{known: string[], onDone: () => void}} props
 */
export function DatasetUpload({ known, onDone }) {
  const now = useStore(upload);
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  useEffect(() => {
    if (now?.state !== "done" || !now.reply) return;
    const { dataset, job } = now.reply;
    toast(job ? `Uploaded ${dataset.name}; it is being tokenised.` : `${dataset.name} already exists.`);
    setFile(null);
    upload.set(null);
    onDone();
  }, [now?.state]);
  if (now && now.state !== "failed") return html`<${Sending} now=${now} />`;
  if (!file)
    return html`<${Drop}
      onFile=${(/** @type {File} */ chosen) => {
        upload.set(null);
        setFile(chosen);
      }}
    />`;
  return html`<${Details}
    key=${file.name}
    file=${file}
    known=${known}
    problem=${now?.problem}
    onCancel=${() => {
      upload.set(null);
      setFile(null);
    }}
  />`;
}

/** @param {{onFile: (file: File) => void}} props */
function Drop({ onFile }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [over, setOver] = useState(false);
  /** @param {FileList | null | undefined} files */
  const take = (files) => files?.[0] && onFile(files[0]);
  return html`<section
    class=${`card drop ${over ? "over" : ""}`}
    aria-label="Upload"
    onDragOver=${(event) => {
      event.preventDefault();
      setOver(true);
    }}
    onDragLeave=${() => setOver(false)}
    onDrop=${(event) => {
      event.preventDefault();
      setOver(false);
      take(event.dataTransfer?.files);
    }}
  >
    <${Icon} name="upload" />
    <p><strong>Drop a file here</strong>, or choose one. Formats: .txt, .jsonl and .parquet; files may be gzipped.</p>
    <button class="button primary" onClick=${() => input.current?.click()}>Choose a file…</button>
    <input
      ref=${input}
      type="file"
      hidden
      aria-label="File"
      accept=".txt,.jsonl,.parquet,.gz"
      onChange=${(event) => take(event.target.files)}
    />
  </section>`;
}

/** @param {{file: File, known: string[], problem?: Ui.Failure | null, onCancel: () => void}} props */
function Details({ file, known, problem, onCancel }) {
  const [form, setForm] = useState(() => guess(file.name));
  /** @type {(name: string) => Ui.Handler} */
  const set = (name) => (event) => setForm((old) => ({ ...old, [name]: event.target.value }));
  const found = findings(problem, ["name", "format", "textField"]);
  const { wrong } = found;
  const { name, format, textField } = form;
  /** @type {Ui.Handler} */
  const send = (event) => {
    event.preventDefault();
    start(file, { name: name.trim(), format, textField: format === "txt" ? "" : textField.trim() });
  };
  return html`<form class="card stack" aria-label="Upload" onSubmit=${send}>
    <header class="row apart">
      <h2>${file.name}</h2>
      <span class="note">${bytes(file.size)}</span>
    </header>
    <div class="fields">
      <${Field}
        label="Name"
        hint=${
          known.includes(name.trim())
            ? "A dataset with this name exists. The upload succeeds only if the file contains the same text."
            : "A configuration selects the dataset by this name (data.source)"
        }
        wrong=${wrong("name")}
      >
        ${(props) => html`<input ...${props} required maxlength=${MAX_NAME} value=${name} onInput=${set("name")} />`}
      <//>
      <${Field}
        label="Format"
        hint=${format === "txt" ? "Separate documents with <|endoftext|>" : undefined}
        wrong=${wrong("format")}
      >
        ${(props) =>
          html`<select ...${props} value=${format} onChange=${set("format")}>
            ${Object.entries(FORMATS).map(
              ([value, text]) => html`<option value=${value} selected=${value === format}>${text}</option>`,
            )}
          </select>`}
      <//>
      ${
        format !== "txt" &&
        html`<${Field}
          label=${format === "jsonl" ? "Field that contains the text" : "Column that contains the text"}
          wrong=${wrong("textField")}
        >
          ${(props) => html`<input ...${props} required value=${textField} onInput=${set("textField")} />`}
        <//>`
      }
    </div>
    <${Problems} error=${problem} found=${found} />
    <div class="row">
      <button class="button primary"><${Icon} name="upload" />Upload</button>
      <button type="button" class="button" onClick=${onCancel}>Choose another file</button>
    </div>
  </form>`;
}

/** @param {{now: Ui.Upload}} props */
function Sending({ now }) {
  const share = now.total ? now.sent / now.total : 1;
  const elapsed = (Date.now() - now.startedAt) / 1000;
  const secondsLeft =
    now.state === "sending" && elapsed > 2 && now.sent ? ((now.total - now.sent) * elapsed) / now.sent : null;
  return html`<section class="card stack" aria-label="Upload">
    <header class="row apart">
      <h2>${now.file}</h2>
      <button class="button small" onClick=${cancel}><${Icon} name="cross" />Cancel</button>
    </header>
    <span
      class="progress"
      role="progressbar"
      aria-label="Upload"
      aria-valuemin="0"
      aria-valuemax="100"
      aria-valuenow=${Math.floor(share * 100)}
    >
      <span style=${{ width: `${share * 100}%` }}></span>
    </span>
    <p class="note">
      ${
        now.state === "checking"
          ? "The file has been sent. The server is checking it."
          : `${bytes(now.sent)} of ${bytes(now.total)} · ${percent(share)}${
              secondsLeft !== null ? ` · ${duration(secondsLeft)} left` : ""
            }`
      }
    </p>
  </section>`;
}
