// What was typed or set, kept for this tab: a reload does not lose it.

/**
 * @param {string} key
 * @returns {unknown}
 */
export function recall(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key) ?? "null");
  } catch {
    return null; // storage is forbidden
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
    // It lives as long as the page, then.
  }
}
