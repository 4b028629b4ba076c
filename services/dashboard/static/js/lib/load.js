// `useLoad`: data for a view, with its loading, error and offline states; asks again by itself when the line is back.
import { useCallback, useEffect, useRef, useState } from "./html.js";
import { connection, passing } from "./api.js";
import { session } from "./session.js";

/**
 * Changes the data. `change` may be a function of the current data; without current data it is not called.
 *
 * @template T
 * @param {T | ((old: T) => T)} change
 * @param {T | null} old
 */
function changed(change, old) {
  if (typeof change !== "function") return change;
  return old === null ? null : /** @type {(old: T) => T} */ (change)(old);
}

/**
 * `load(signal)` is called when one of `deps` changes; gives {data, error, loading, reload, setData}. Old data stays
 * while new is fetched. `every` (ms): asks again so often while the page is seen.
 *
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {unknown[]} deps
 * @param {{every?: number}} [options]
 * @returns {Ui.Load<T>}
 */
export function useLoad(load, deps, { every = 0 } = {}) {
  const [state, setState] = useState(/** @type {Ui.Loading<T>} */ ({ data: null, error: null, loading: true }));
  const latest = useRef(load);
  latest.current = load;
  const running = useRef(/** @type {AbortController | null} */ (null));
  const again = useCallback(async (moved = false) => {
    running.current?.abort();
    const aborter = new AbortController();
    running.current = aborter;
    setState((old) => ({ ...old, loading: true }));
    try {
      const data = await latest.current(aborter.signal);
      if (!aborter.signal.aborted) setState({ data, error: null, loading: false });
    } catch (error) {
      // Old data of another address would look like the answer.
      const stale = moved && !passing(error);
      if (!aborter.signal.aborted) setState((old) => ({ data: stale ? null : old.data, error, loading: false }));
    }
  }, []);
  useEffect(() => {
    setState((old) => ({ ...old, error: null }));
    void again(true);
    return () => running.current?.abort();
  }, deps);
  useEffect(() => {
    const failed = () => passing(state.error) || state.error?.status === 401;
    const stops = [
      connection.watch((now) => now === "online" && failed() && again()),
      session.watch(() => failed() && again()),
    ];
    return () => stops.forEach((stop) => stop());
  }, [state.error]);
  useEffect(() => {
    // Also the way back from a lost line: somebody has to ask whether the server is there again.
    const pause = passing(state.error) ? 2000 : every;
    if (!pause) return undefined;
    const timer = setInterval(() => !document.hidden && again(), pause);
    return () => clearInterval(timer);
  }, [every, state.error]);
  const setData = useCallback(
    /** @param {T | ((old: T) => T)} change */
    (change) => setState((old) => ({ ...old, data: changed(change, old.data) })),
    [],
  );
  const reload = useCallback(() => void again(), []);
  return { ...state, reload, setData };
}
