// Stores inputs and settings of the user for this tab, so that they survive a reload.

/**
 * @param {string} key
 * @returns {unknown}
 */
export function recall(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key) ?? "null");
  } catch {
    return null; // the browser forbids storage
  }
}

/**
 * Stores `value` under `key`. If `value` is null, removes the stored value.
 *
 * @param {string} key
 * @param {unknown} value
 */
export function keep(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // The browser forbids storage; the value is lost when the page is closed.
  }
}
