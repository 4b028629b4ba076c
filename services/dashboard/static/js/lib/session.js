// The signed-in user: the token, which is stored for this tab or on this device, and the scopes of the token.
import { createStore } from "./store.js";

const KEY = "tidal.token";

/** @param {() => globalThis.Storage} storage */
function read(storage) {
  try {
    return storage().getItem(KEY);
  } catch {
    return null; // the browser forbids storage
  }
}

const tab = () => window.sessionStorage;
const device = () => window.localStorage;

/**
 * {token, name, scopes, readsOpen, version, known}. `readsOpen` is true if reading needs no token. `known` is true once
 * the server has returned the session.
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

/** Whether the sign-in dialog is open. */
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
    // The browser forbids storage; the token is lost when the page is closed.
  }
}

export function forget() {
  for (const storage of [tab, device]) {
    try {
      storage().removeItem(KEY);
    } catch {
      // The browser forbids storage, so nothing was stored.
    }
  }
}
