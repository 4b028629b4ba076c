// Sends requests to the API of this page with the user's token, and converts problem documents to errors.
import { createStore } from "./store.js";
import { session, signInOpen, forget, keepToken, token } from "./session.js";

/**
 * The address of the page. The paths of the API are relative to this address. All views share one document, so the
 * address is also correct behind a proxy that adds a path.
 */
export const base = new URL(".", document.baseURI);
/** @param {string} path */
export const url = (path) => new URL(path.replace(/^\//, ""), base).href;

/**
 * A store with the value "online" if the server answered the last request, otherwise "offline".
 */
export const connection = createStore(/** @type {"online" | "offline"} */ ("online"));

/**
 * Returns a readable name of a field. For `body.config.training.max_steps`, it is "max steps (training)".
 *
 * @param {string} location
 */
export function fieldName(location) {
  const [name, ...around] = location
    .split(".")
    .filter((part) => !/^(body|query|path|config|\d+)$/.test(part))
    .reverse();
  const readable = (name ?? "")
    .replace(/([A-Z])/g, " $1")
    .replaceAll("_", " ")
    .toLowerCase();
  return around.length ? `${readable} (${around.reverse().join(", ")})` : readable;
}

/**
 * Returns a validation message of the API in words that users understand.
 *
 * @param {string} message
 */
const plainMessage = (message) =>
  message
    .replace(/^Input should be (a valid )?/, (_, kind) => (kind ? "Must be a " : "Must be "))
    .replace(/^(Must be a )integer/, "$1whole number")
    .replace(/, unable to parse.*?(?=, got|$)/, "");

/** @param {Api.Finding} finding */
const findingText = ({ location, message }) => [fieldName(location), plainMessage(message)].filter(Boolean).join(": ");

/**
 * Assigns the errors of a problem document to the fields `names` of a form. In the result, `wrong(name)` returns the
 * message for a field, `marked` is true if any field has a message, and `rest` contains the messages that belong to no
 * field.
 *
 * @param {Ui.Failure | null | undefined} problem
 * @param {string[]} names
 * @returns {Ui.Findings}
 */
export function findings(problem, names) {
  const fields = new Map();
  const rest = [];
  for (const error of problem?.errors ?? []) {
    const at = error.location.replace(/^(body|query)\./, "");
    const name = names.find((field) => at === field || at.startsWith(`${field}.`));
    if (name) fields.set(name, [fields.get(name), plainMessage(error.message)].filter(Boolean).join("; "));
    else rest.push(findingText(error));
  }
  return { wrong: (name) => fields.get(name), marked: fields.size > 0, rest };
}

/** The error of a failed request: a problem document (RFC 9457), or status 0 if the server did not answer. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {Api.ProblemBody} body
   */
  constructor(status, body) {
    const { detail = "", errors: [first, ...more] = [] } = body;
    // For an invalid body, `detail` contains only the first invalid field, and calls it by its dotted path. The
    // message of this error therefore lists all invalid fields with readable names.
    const raw = first && detail.startsWith(first.location);
    super((raw ? [first, ...more].map(findingText).join("; ") : detail) || body.title || `HTTP status ${status}`);
    this.status = status;
    this.code = body.code || "";
    this.errors = body.errors || [];
    this.requestId = body.requestId;
    this.retryAfter = body.retryAfter;
  }
}

/**
 * Returns true if the same request may succeed later: the server did not answer, or is not fully available.
 *
 * @param {Ui.Failure | null | undefined} error
 */
export const isTemporary = (error) => [0, 502, 503, 504].includes(error?.status ?? NaN);

/**
 * Handles a failed request whose object may be missing. Returns null for status 404, and throws other errors.
 *
 * @param {Ui.Failure} error
 * @returns {null}
 */
export const nullIfMissing = (error) => {
  if (error.status === 404) return null;
  throw error;
};

/**
 * @typedef {object} Options
 * @property {string} [method]
 * @property {unknown} [body]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {string | null} [as] the token to send; default: the token of the signed-in user
 * @param {string} path
 * @param {Options} [options]
 */
export async function send(path, { method = "GET", body, headers = {}, signal, as = token() } = {}) {
  /** @type {Record<string, string>} */
  const all = { Accept: "application/json", ...headers };
  if (as) all.Authorization = `Bearer ${as}`;
  if (body !== undefined) all["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(url(path), {
      method,
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.set("offline");
    throw new Problem(0, { detail: "The server does not answer.", code: "offline" });
  }
  connection.set("online");
  if (!reply.ok) {
    const problem = await reply.json().catch(() => ({}));
    problem.retryAfter = Number(reply.headers.get("Retry-After")) || undefined;
    if (reply.status === 401 || problem.code === "too_many_wrong_tokens") signInOpen.set(true);
    throw new Problem(reply.status, problem);
  }
  return reply;
}

/**
 * @param {string} path
 * @param {Options} options
 */
async function json(path, options) {
  const reply = await send(path, options);
  return reply.status === 204 ? null : reply.json();
}

/**
 * @template {string} const P
 * @param {P & Api.Known<P, "get">} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<Api.Reply<P>>}
 */
export const get = (path, signal) => json(path, { signal });
/**
 * @template {string} const P
 * @param {P & Api.Known<P, "post">} path
 * @param {Api.Body<P, "post">} [body]
 * @param {Record<string, string>} [headers]
 * @returns {Promise<Api.Reply<P, "post">>}
 */
export const post = (path, body, headers) => json(path, { method: "POST", body, headers });
/**
 * @template {string} const P
 * @param {P & Api.Known<P, "patch">} path
 * @param {Api.Body<P, "patch">} body
 * @returns {Promise<Api.Reply<P, "patch">>}
 */
export const patch = (path, body) => json(path, { method: "PATCH", body });
/**
 * @template {string} const P
 * @param {P & Api.Known<P, "put">} path
 * @param {Api.Body<P, "put">} body
 * @returns {Promise<Api.Reply<P, "put">>}
 */
export const put = (path, body) => json(path, { method: "PUT", body });
/**
 * @template {string} const P
 * @param {P & Api.Known<P, "delete">} path
 * @returns {Promise<Api.Reply<P, "delete">>}
 */
export const remove = (path) => json(path, { method: "DELETE" });

/**
 * Returns a query string: `?a=1&b=x&b=y` for `{a: 1, b: ["x", "y"], c: ""}`.
 *
 * @param {Record<string, string | number | null | undefined | string[]>} values
 * @returns {"" | `?${string}`}
 */
export function query(values) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== undefined && item !== null && item !== "") found.append(name, String(item));
    }
  }
  const text = found.toString();
  return text ? `?${text}` : "";
}

/**
 * Loads the scopes of the token. Opens the sign-in dialog if the server requires a token for reading and the user has
 * no valid one.
 */
export async function refreshSession() {
  const found = await get("api/session");
  session.set((old) => ({ ...old, ...found, known: true }));
  if (!found.readsOpen && !found.name) signInOpen.set(true);
}

/**
 * Signs in with a token. Returns false if the token is wrong. If `onDevice` is true, the token is kept for later
 * visits.
 *
 * @param {string} value
 * @param {boolean} onDevice
 */
export async function signIn(value, onDevice) {
  const found = await json("api/session", { as: value });
  if (!found.name) return false;
  keepToken(value, onDevice);
  session.set({ ...found, token: value, known: true });
  return true;
}

export async function signOut() {
  forget();
  session.set((old) => ({ ...old, token: null, name: null, scopes: [], expiresAt: null }));
  await refreshSession();
}
