// Loads points of higher resolution for the visible range while charts are zoomed.
import { useEffect } from "../lib/html.js";
import { get, query } from "../lib/api.js";
import { useStore } from "../lib/store.js";

const QUIET_MS = 150;
const MARGIN = 0.05;

/**
 * Loads the points of the zoomed range for each of `runs`, at most `maxPoints` per metric. `zoom` is the store of the
 * range, which all charts of the page share.
 *
 * @param {Ui.Run[]} runs
 * @param {Ui.Zoom} zoom
 * @param {number} maxPoints
 */
export function useZoomPoints(runs, zoom, maxPoints) {
  const range = useStore(zoom);
  const which = runs.map((run) => run.path).join();
  useEffect(() => {
    const aborter = new AbortController();
    const timer =
      range &&
      setTimeout(() => runs.forEach((run) => void fetchRange(run, range, maxPoints, aborter.signal)), QUIET_MS);
    return () => {
      if (timer) clearTimeout(timer);
      aborter.abort();
      for (const { store } of runs) for (const kind of store.thinned) store.refine(kind, null);
    };
  }, [range, which]);
}

/**
 * Loads the points of one run. The loaded range is a little larger than the visible one, so that lines reach the edges
 * of the chart.
 *
 * @param {Ui.Run} run
 * @param {Ui.Range} range
 * @param {number} maxPoints
 * @param {AbortSignal} signal
 */
async function fetchRange({ store, path }, { min, max }, maxPoints, signal) {
  const margin = (max - min) * MARGIN;
  const fromStep = Math.max(0, Math.floor(min - margin));
  const toStep = Math.min(Number.MAX_SAFE_INTEGER, Math.max(fromStep, Math.ceil(max + margin)));
  for (const kind of store.thinned) {
    try {
      const reply = await get(`${path}/${kind}${query({ mode: "historical", maxPoints, fromStep, toStep })}`, signal);
      if (!signal.aborted) store.refine(kind, reply);
    } catch {
      return; // the range has changed, or the server does not respond; the points loaded before remain
    }
  }
}
