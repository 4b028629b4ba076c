// A store contains a value and notifies watchers of changes. A component that calls `useStore` renders again when the
// value changes.
import { useEffect, useState } from "./html.js";

/**
 * @template T
 * @param {T} initial
 * @returns {Ui.Store<T>}
 */
export function createStore(initial) {
  let value = initial;
  /** @type {Set<(value: T) => unknown>} */
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      const made = typeof next === "function" ? /** @type {(old: T) => T} */ (next)(value) : next;
      if (Object.is(made, value)) return;
      value = made;
      for (const listener of [...listeners]) listener(value);
    },
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * @template T
 * @param {Ui.Store<T>} store
 * @returns {T}
 */
export function useStore(store) {
  const [value, setValue] = useState(store.get());
  useEffect(() => {
    setValue(() => store.get());
    return store.watch((next) => setValue(() => next));
  }, [store]);
  return value;
}
