// Shares the points of experiments between all charts of a page. Each experiment is loaded once and followed while it
// runs.
import { get, query } from "../lib/api.js";
import { follow } from "../lib/sse.js";
import { hasEnded } from "../lib/job-signals.js";
import { KINDS, SeriesStore } from "./series.js";

const MAX_POINTS = 2000;
const MAX_STREAMS = 3; // maximum number of experiments that are followed at the same time
/**
 * @typedef {{store: SeriesStore, users: number, stop: (() => void) | null, found: Promise<Api.Experiment>}} Entry
 * @type {Map<string, Entry>} keyed by experiment id
 */
const entries = new Map();
let streams = 0;

/**
 * Returns {store, found}. The promise `found` resolves to the experiment when its points are in `store`. `release` must
 * be called when the points are no longer needed.
 *
 * @param {string} id
 */
export function acquire(id) {
  let entry = entries.get(id);
  if (!entry) {
    const store = new SeriesStore();
    const made = /** @type {Entry} */ ({ store, users: 0, stop: null });
    entry = made;
    entries.set(id, made);
    made.found = load(id, made);
    made.found.catch(() => entries.get(id) === made && entries.delete(id)); // the next call of `acquire` tries again
  }
  entry.users += 1;
  return entry;
}

/**
 * @param {string} id
 * @param {Entry} entry
 */
export function release(id, entry) {
  entry.users -= 1;
  if (entry.users > 0) return;
  entry.stop?.();
  entry.stop = null;
  if (entries.get(id) === entry) entries.delete(id);
}

/**
 * @param {string} id
 * @param {Entry} entry
 * @returns {Promise<Api.Experiment>}
 */
async function load(id, entry) {
  /** @type {Api.ExperimentPath} */
  const path = `api/experiments/${encodeURIComponent(id)}`;
  const found = await get(path);
  const replies = await Promise.all(
    KINDS.map((kind) => get(`${path}/${kind}${query({ mode: "historical", maxPoints: MAX_POINTS })}`)),
  );
  replies.forEach((reply, i) => entry.store.load(KINDS[i], reply));
  if (hasEnded(found.status) || streams >= MAX_STREAMS || entry.users < 1) return found;
  streams += 1;
  const end = follow(`${path}/brief/stream`, {
    since: replies[0].streamCursor,
    onEvent(name, data) {
      if (name === "metrics" || name === "rl-metrics") entry.store.append(name, data.points);
      else if (name === "rewind") entry.store.rewind(data);
      else if (name === "reset") void reload(path, entry.store);
    },
  });
  entry.stop = () => {
    streams -= 1;
    end();
  };
  return found;
}

/**
 * @param {Api.ExperimentPath} path
 * @param {SeriesStore} store
 */
async function reload(path, store) {
  for (const kind of KINDS) {
    const reply = await get(`${path}/${kind}${query({ mode: "historical", maxPoints: MAX_POINTS })}`).catch(() => null);
    if (reply) store.load(kind, reply);
  }
}

/**
 * Returns the first step at which a metric was not finite. The metric may be of kind `metrics` or `rl-metrics`.
 *
 * @param {SeriesStore} store
 * @param {string} name
 */
export const divergedAt = (store, name) =>
  KINDS.map((kind) => store.diverged(kind, name)).find((step) => step !== undefined);

/**
 * Returns the points of a metric, which may be of kind `metrics` or `rl-metrics`.
 *
 * @param {SeriesStore} store
 * @param {string} name
 */
export const lineOf = (store, name) => KINDS.map((kind) => store.get(kind, name)).find((line) => line?.x.length);
