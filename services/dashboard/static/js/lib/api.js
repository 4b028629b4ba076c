// Requests to the api this page came from: the token, problem documents as errors, whether the server can be reached.
import { createStore } from "./store.js";
import { session, signInOpen, forget, keepToken, token } from "./session.js";

/** Where the page lies: works below a proxy's sub-path, because all views share one document. */
export const base = new URL(".", document.baseURI);
/** @param {string} path */
export const url = (path) => new URL(path.replace(/^\//, ""), base).href;

/**
 * "online", or "offline" after a request that got no answer, until one does.
 */
export const connection = createStore(/** @type {"online" | "offline"} */ ("online"));

/**
 * `body.config.training.max_steps` as people say it: "max steps (training)".
 *
 * @param {string} location
 */
export function words(location) {
  const [name, ...around] = location
    .split(".")
    .filter((part) => !/^(body|query|path|config|\d+)$/.test(part))
    .reverse();
  const plain = (name ?? "")
    .replace(/([A-Z])/g, " $1")
    .replaceAll("_", " ")
    .toLowerCase();
  return around.length ? `${plain} (${around.reverse().join(", ")})` : plain;
}

/**
 * Returns a validation message of the API in plain words.
 *
 * @param {string} message
 */
const plain = (message) =>
  message
    .replace(/^Input should be (a valid )?/, (_, kind) => (kind ? "Must be a " : "Must be "))
    .replace(/^(Must be a )integer/, "$1whole number")
    .replace(/, unable to parse.*?(?=, got|$)/, "");

/** @param {Api.Finding} finding */
const said = ({ location, message }) => [words(location), plain(message)].filter(Boolean).join(": ");

/**
 * What a problem says about a form with the fields `names`: `wrong(name)` is the message for one, `marked` tells
 * whether any has one, `rest` are the messages that belong to none.
 *
 * @param {Ui.Failure | null | undefined} problem
 * @param {string[]} names
 * @returns {Ui.Findings}
 */
export function findings(problem, names) {
  const fields = new Map();
  const rest = [];
  for (const one of problem?.errors ?? []) {
    const at = one.location.replace(/^(body|query)\./, "");
    const name = names.find((field) => at === field || at.startsWith(`${field}.`));
    if (name) fields.set(name, [fields.get(name), plain(one.message)].filter(Boolean).join("; "));
    else rest.push(said(one));
  }
  return { wrong: (name) => fields.get(name), marked: fields.size > 0, rest };
}

/** A problem document (RFC 9457), or a request without an answer (status 0). */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {Api.ProblemBody} body
   */
  constructor(status, body) {
    const { detail = "", errors: [first, ...more] = [] } = body;
    // The reference's words for a refused body name its fields as a program does.
    const raw = first && detail.startsWith(first.location);
    super((raw ? [first, ...more].map(said).join("; ") : detail) || body.title || `HTTP status ${status}`);
    this.status = status;
    this.code = body.code || "";
    this.errors = body.errors || [];
    this.requestId = body.requestId;
    this.retryAfter = body.retryAfter;
  }
}

/**
 * Returns whether a later retry may succeed: there was no answer, or a part of the server is unavailable.
 *
 * @param {Ui.Failure | null | undefined} error
 */
export const passing = (error) => [0, 502, 503, 504].includes(error?.status ?? NaN);

/**
 * @typedef {object} Options
 * @property {string} [method]
 * @property {unknown} [body]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {string | null} [as] the token, if it is not that of the session
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
 * `{a: 1, b: ["x", "y"], c: ""}` as `?a=1&b=x&b=y`.
 *
 * @param {Record<string, string | number | null | undefined | string[]>} values
 * @returns {"" | `?${string}`}
 */
export function query(values) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") found.append(name, String(one));
    }
  }
  const text = found.toString();
  return text ? `?${text}` : "";
}

/** Ask what the token is good for. Without a good one where reads are closed, the sign-in dialog opens. */
export async function refreshSession() {
  const found = await get("api/session");
  session.set((old) => ({ ...old, ...found, known: true }));
  if (!found.readsOpen && !found.name) signInOpen.set(true);
}

/**
 * Signs in; returns false when the token is wrong.
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
  session.set((old) => ({ ...old, token: null, name: null, scopes: [] }));
  await refreshSession();
}
