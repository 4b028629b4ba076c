// Who is signed in: the token (kept for the tab, or on this device if asked), and what the server says it may do.
import { createStore } from "./store.js";

const KEY = "tidal.token";

/** @param {() => globalThis.Storage} storage */
function read(storage) {
  try {
    return storage().getItem(KEY);
  } catch {
    return null; // storage is forbidden
  }
}

const tab = () => window.sessionStorage;
const device = () => window.localStorage;

/**
 * {token, name, scopes, readsOpen, version, known}; `known` once the server has answered.
 */
export const session = createStore(
  /** @type {Ui.Session} */ ({
    token: read(tab) ?? read(device),
    name: null,
    scopes: [],
    readsOpen: true,
    version: "",
    known: false,
  }),
);

/** Whether the sign-in dialog is shown. */
export const signInOpen = createStore(false);

export const token = () => session.get().token;
/** @param {{scopes: string[]}} state */
export const maySubmit = (state) => state.scopes.includes("submit");

/**
 * @param {string} value
 * @param {boolean} onDevice
 */
export function keepToken(value, onDevice) {
  forget();
  try {
    (onDevice ? device() : tab()).setItem(KEY, value);
  } catch {
    // It lives as long as the page, then.
  }
}

export function forget() {
  for (const storage of [tab, device]) {
    try {
      storage().removeItem(KEY);
    } catch {
      // Nothing was kept.
    }
  }
}
