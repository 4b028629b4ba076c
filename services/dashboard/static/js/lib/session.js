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
 * {token, name, scopes, expiresAt, readsOpen, version, known}. `scopes` is what the user may do. `readsOpen` is true
 * if reading needs no token. `known` is true once the server has returned the session.
 */
export const session = createStore(
  /** @type {Ui.Session} */ ({
    token: read(tab) ?? read(device),
    name: null,
    scopes: [],
    expiresAt: null,
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

/** @type {Record<string, string>} */
const ABILITIES = {
  read: "read",
  generate: "generate and analyse text",
  submit: "submit jobs and change data",
  admin: "manage tokens",
};

/**
 * Returns what the user may do as text, such as "read, generate and analyse text".
 *
 * @param {{scopes: string[]}} state
 */
export const abilities = ({ scopes }) => scopes.map((scope) => ABILITIES[scope] ?? scope).join(", ") || "nothing";

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
