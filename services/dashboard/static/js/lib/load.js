// Provides the hook `useLoad`, which loads data for a view. After a temporary failure, `useLoad` repeats the request
// until it succeeds.
import { useCallback, useEffect, useRef, useState } from "./html.js";
import { connection, isTemporary } from "./api.js";
import { session } from "./session.js";

/**
 * Returns the changed data. `change` is the new data, or a function from the old to the new data. Without old data, the
 * function is not called.
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
 * Calls `load(signal)` when one of `deps` changes, and returns {data, error, loading, reload, setData}. The old data is
 * kept until new data is loaded. If `every` is not 0, a visible page loads again every `every` ms.
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
  const again = useCallback(async (depsChanged = false) => {
    running.current?.abort();
    const aborter = new AbortController();
    running.current = aborter;
    setState((old) => ({ ...old, loading: true }));
    try {
      const data = await latest.current(aborter.signal);
      if (!aborter.signal.aborted) setState({ data, error: null, loading: false });
    } catch (error) {
      // Data that was loaded for other `deps` must not be shown as the result for the new ones.
      const stale = depsChanged && !isTemporary(error);
      if (!aborter.signal.aborted) setState((old) => ({ data: stale ? null : old.data, error, loading: false }));
    }
  }, []);
  useEffect(() => {
    setState((old) => ({ ...old, error: null }));
    void again(true);
    return () => running.current?.abort();
  }, deps);
  useEffect(() => {
    const failed = () => isTemporary(state.error) || state.error?.status === 401;
    const stops = [
      connection.watch((now) => now === "online" && failed() && again()),
      session.watch(() => failed() && again()),
    ];
    return () => stops.forEach((stop) => stop());
  }, [state.error]);
  useEffect(() => {
    // While the server does not answer, a request every 2 s detects when it answers again.
    const pause = isTemporary(state.error) ? 2000 : every;
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
