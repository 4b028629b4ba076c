// One upload at a time, kept here so that it goes on while other pages are looked at. XMLHttpRequest, because fetch
// does not say how much has been sent.
import { Problem, connection, query, url } from "./api.js";
import { signInOpen, token } from "./session.js";
import { createStore } from "./store.js";

/** {file, name, sent, total, startedAt, state: "sending" | "checking" | "done" | "failed", problem, reply}, or null. */
export const upload = createStore(null);
let request = null;

const set = (changes) => upload.set((old) => (old ? { ...old, ...changes } : old));
const running = () => ["sending", "checking"].includes(upload.get()?.state);
const warn = (event) => running() && event.preventDefault();
window.addEventListener("beforeunload", warn);

/** Send `file` as it is; `fields` are the query of `POST /api/datasets`. */
export function start(file, fields) {
  request = new XMLHttpRequest();
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
  request.open("POST", url(`api/datasets${query(fields)}`));
  request.setRequestHeader("Accept", "application/json");
  request.setRequestHeader("Content-Type", "application/octet-stream");
  if (token()) request.setRequestHeader("Authorization", `Bearer ${token()}`);
  request.upload.onprogress = (event) => set({ sent: event.loaded });
  request.upload.onload = () => set({ sent: file.size, state: "checking" });
  request.onload = () => {
    connection.set("online");
    const body = parse(request.responseText);
    if (request.status < 300 && body.dataset) set({ state: "done", reply: body });
    else fail(request.status, body);
    if (request.status === 401) signInOpen.set(true);
  };
  // Also a file that was changed or taken away while it was read.
  request.onerror = () =>
    fail(0, { detail: "The connection broke, or the file cannot be read. Nothing was kept; upload it again." });
  request.send(file);
}

/** Give it up; the server keeps nothing. */
export function cancel() {
  request?.abort();
  upload.set(null);
}

const fail = (status, body) => set({ state: "failed", problem: new Problem(status, body) });

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
