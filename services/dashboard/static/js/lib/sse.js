// Follows live streams over one connection, which all windows of the browser share (`lib/stream-connection.js`).
//
// Each stream resumes after the last event that the window received, so that no event is lost in an interruption. A
// window that has been hidden for a minute, or that the browser has suspended, follows no stream until it is visible
// again.
import { connection, url } from "./api.js";
import { before, join } from "./stream-connection.js";
import { session, signInOpen, token } from "./session.js";

const HIDDEN_MS = 60_000;
const PING_MS = 20_000;
/** @type {Map<number, {topic: string, since: string | null, onEvent: Api.OnEvent}>} */
const follows = new Map(); // key -> {topic, since, onEvent}
let keys = 0;
let paused = false;
/**
 * The link of this window to the shared connection. `pings` is the number of pings without reply. `alone` replaces the
 * shared worker by a connection in this window.
 *
 * @typedef {{as: string | null, pings: number, send: (message: Ui.ConnectionRequest) => void, alone?: () => void}} Link
 * @type {Link | null}
 */
let link = null;
let hiddenTimer = 0;

function connect(shared = "SharedWorker" in window) {
  const as = token();
  /** @type {Link} */
  const own = { as, pings: 0, send: () => {} };
  const alone = () => link === own && connect(false);
  link = own;
  try {
    if (!shared) throw null;
    const worker = new SharedWorker(new URL("stream-connection.js", import.meta.url), { type: "module" });
    worker.onerror = alone; // called in browsers that do not support modules in shared workers
    worker.port.onmessage = ({ data }) => link === own && receive(data);
    own.send = (message) => worker.port.postMessage(message);
    own.alone = alone;
  } catch {
    own.send = join((message) => link === own && receive(message));
  }
  sendSubscriptions();
}

/** Sends all subscriptions of this window to the shared connection; an empty list while the window is paused. */
function sendSubscriptions(wanted = paused ? [] : [...follows]) {
  /** @type {Record<string, Ui.Sub>} */
  const subs = {};
  for (const [key, { topic, since }] of wanted) subs[key] = [topic, since];
  link?.send({ address: url("api/stream"), token: link.as, subs });
}

/** @param {Ui.ConnectionMessage} message */
function receive({ topic, name, data, id, online, refused, again }) {
  if (link) link.pings = 0;
  if (again) sendSubscriptions();
  if (online !== undefined) connection.set(online ? "online" : "offline");
  if (refused === 401) signInOpen.set(true);
  const parsed = data ? JSON.parse(data) : null;
  for (const [key, subscription] of [...follows]) {
    if (subscription.topic !== topic) continue;
    if (name === "reset") subscription.since = null;
    else if (name === "error") follows.delete(key);
    else if (!name)
      // A message without a name contains only the current position in a topic that another window already follows.
      subscription.since ??= id ?? null;
    else if (id) {
      if (subscription.since && !before(subscription.since, id)) continue;
      subscription.since = id;
    }
    try {
      if (name) subscription.onEvent(.../** @type {Api.StreamEvent} */ ([name, parsed]));
    } catch (error) {
      reportError(error); // The error is not thrown, so that all other listeners still get the event.
    }
  }
}

/**
 * Follows the stream at `path` until the returned function is called. The stream begins after the event with the id
 * `since` or, without `since`, at its current end. `onEvent(name, data)` is called once for each event.
 *
 * @param {`api/${string}/stream`} path
 * @param {{since?: string | null, onEvent: Api.OnEvent}} options
 */
export function follow(path, { since = null, onEvent }) {
  const key = (keys += 1);
  follows.set(key, { topic: decodeURIComponent(path.slice(4, -7)), since, onEvent }); // api/<topic>/stream
  if (link) sendSubscriptions();
  else connect();
  return () => {
    follows.delete(key);
    sendSubscriptions();
  };
}

/** @param {boolean} now */
function setPaused(now) {
  clearTimeout(hiddenTimer);
  if (paused === now) return;
  paused = now;
  sendSubscriptions();
}

document.addEventListener("visibilitychange", () => {
  setPaused(false);
  if (document.hidden) hiddenTimer = setTimeout(() => setPaused(true), HIDDEN_MS);
});
window.addEventListener("pagehide", () => setPaused(true));
window.addEventListener("pageshow", () => setPaused(false));
session.watch(() => {
  if (!link || link.as === token()) return;
  sendSubscriptions([]);
  connect();
});
setInterval(() => {
  if (!link?.alone) return;
  link.pings += 1;
  if (link.pings > 3)
    link.alone(); // the shared worker has ended
  else link.send({});
}, PING_MS);
