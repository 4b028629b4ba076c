// Stores what the user typed or set for this tab, so that a reload does not lose it.

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
 * Stores `value`, or removes the stored value when it is null.
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
