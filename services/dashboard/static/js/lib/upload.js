// Uploads one dataset at a time. The upload continues while other pages are shown. It uses XMLHttpRequest, because
// fetch does not report how much has been sent.
import { Problem, connection, query, url } from "./api.js";
import { signInOpen, token } from "./session.js";
import { createStore } from "./store.js";

/**
 * The current upload {file, name, sent, total, startedAt, state: "sending" | "checking" | "done" | "failed", problem,
 * reply}; null if there is none. `sent` and `total` are in bytes.
 */
export const upload = createStore(/** @type {Ui.Upload | null} */ (null));
/** @type {XMLHttpRequest | null} */
let request = null;

/** @param {Partial<Ui.Upload>} changes */
const set = (changes) => upload.set((old) => (old ? { ...old, ...changes } : old));
const running = () => ["sending", "checking"].includes(upload.get()?.state ?? "");
/** @param {BeforeUnloadEvent} event */
const warn = (event) => running() && event.preventDefault();
window.addEventListener("beforeunload", warn);

/**
 * Starts to upload `file`. `fields` are the query parameters of `POST /api/datasets`.
 *
 * @param {File} file
 * @param {{name: string, format: string, textField: string}} fields
 */
export function start(file, fields) {
  const sending = new XMLHttpRequest();
  request = sending;
  upload.set({
    file: file.name,
    name: fields.name,
    sent: 0,
    total: file.size,
    startedAt: Date.now(),
    state: "sending",
    problem: null,
    reply: null,
  });
  sending.open("POST", url(`api/datasets${query(fields)}`));
  sending.setRequestHeader("Accept", "application/json");
  sending.setRequestHeader("Content-Type", "application/octet-stream");
  if (token()) sending.setRequestHeader("Authorization", `Bearer ${token()}`);
  sending.upload.onprogress = (event) => set({ sent: event.loaded });
  sending.upload.onload = () => set({ sent: file.size, state: "checking" });
  sending.onload = () => {
    connection.set("online");
    const body = parse(sending.responseText);
    if (sending.status < 300 && body.dataset) set({ state: "done", reply: body });
    else fail(sending.status, body);
    if (sending.status === 401) signInOpen.set(true);
  };
  // This event also occurs if the file was changed or deleted during the upload.
  sending.onerror = () =>
    fail(0, { detail: "The connection broke, or the file cannot be read. Nothing was stored; upload the file again." });
  sending.send(file);
}

/** Cancels the upload. The server does not store a part of a file. */
export function cancel() {
  request?.abort();
  upload.set(null);
}

/**
 * @param {number} status
 * @param {Api.ProblemBody} body
 */
const fail = (status, body) => set({ state: "failed", problem: new Problem(status, body) });

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
