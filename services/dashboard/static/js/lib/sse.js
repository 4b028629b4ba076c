// Live streams, over the one connection that all windows share (`lib/line.js`).
//
// What happened while nobody was connected comes afterwards: each stream goes on after its last event. A window that is
// hidden for a minute, or put away by the browser, asks for nothing until it is seen again.
import { connection, url } from "./api.js";
import { before, join } from "./line.js";
import { session, signInOpen, token } from "./session.js";

const HIDDEN_MS = 60_000;
const PING_MS = 20_000;
/** @type {Map<number, {topic: string, since: string | null, onEvent: Api.OnEvent}>} */
const follows = new Map(); // key -> {topic, since, onEvent}
let keys = 0;
let resting = false;
/**
 * `pings` are those not answered yet; `alone` goes on without the worker.
 *
 * @typedef {{as: string | null, pings: number, send: (message: Ui.LineWish) => void, alone?: () => void}} Own
 * @type {Own | null}
 */
let line = null;
let hiddenTimer = 0;

function connect(shared = "SharedWorker" in window) {
  const as = token();
  /** @type {Own} */
  const own = { as, pings: 0, send: () => {} };
  const alone = () => line === own && connect(false);
  line = own;
  try {
    if (!shared) throw null;
    const worker = new SharedWorker(new URL("line.js", import.meta.url), { type: "module" });
    worker.onerror = alone; // a browser that knows no modules there
    worker.port.onmessage = ({ data }) => line === own && heard(data);
    own.send = (message) => worker.port.postMessage(message);
    own.alone = alone;
  } catch {
    own.send = join((message) => line === own && heard(message));
  }
  say();
}

/** All that this window wants. */
function say(wanted = resting ? [] : [...follows]) {
  /** @type {Record<string, Ui.Sub>} */
  const subs = {};
  for (const [key, { topic, since }] of wanted) subs[key] = [topic, since];
  line?.send({ address: url("api/stream"), token: line.as, subs });
}

/** @param {Ui.LineMessage} message */
function heard({ topic, name, data, id, online, refused, again }) {
  if (line) line.pings = 0;
  if (again) say();
  if (online !== undefined) connection.set(online ? "online" : "offline");
  if (refused === 401) signInOpen.set(true);
  const parsed = data ? JSON.parse(data) : null;
  for (const [key, one] of [...follows]) {
    if (one.topic !== topic) continue;
    if (name === "reset") one.since = null;
    else if (name === "error") follows.delete(key);
    else if (!name)
      one.since ??= id ?? null; // where it joined a stream that ran already
    else if (id) {
      if (one.since && !before(one.since, id)) continue;
      one.since = id;
    }
    try {
      if (name) one.onEvent(.../** @type {Api.StreamEvent} */ ([name, parsed]));
    } catch (error) {
      reportError(error); // the others go on
    }
  }
}

/**
 * Follow the stream at `path` from the event `since` on, or from now on, until the returned function is called.
 * `onEvent(name, data)` gets each event once.
 *
 * @param {`api/${string}/stream`} path
 * @param {{since?: string | null, onEvent: Api.OnEvent}} options
 */
export function follow(path, { since = null, onEvent }) {
  const key = (keys += 1);
  follows.set(key, { topic: decodeURIComponent(path.slice(4, -7)), since, onEvent }); // api/<topic>/stream
  if (line) say();
  else connect();
  return () => {
    follows.delete(key);
    say();
  };
}

/** @param {boolean} now */
function rest(now) {
  clearTimeout(hiddenTimer);
  if (resting === now) return;
  resting = now;
  say();
}

document.addEventListener("visibilitychange", () => {
  rest(false);
  if (document.hidden) hiddenTimer = setTimeout(() => rest(true), HIDDEN_MS);
});
window.addEventListener("pagehide", () => rest(true));
window.addEventListener("pageshow", () => rest(false));
session.watch(() => {
  if (!line || line.as === token()) return;
  say([]);
  connect();
});
setInterval(() => {
  if (!line?.alone) return;
  line.pings += 1;
  if (line.pings > 3)
    line.alone(); // the worker is dead
  else line.send({});
}, PING_MS);
