// Selects the view by the fragment of the address, such as `#/experiments/<id>?tab=logs`. There is only one document,
// so that the dashboard also works behind a proxy that adds a path.
import { useEffect } from "./html.js";
import { createStore } from "./store.js";

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null; // The percent encoding is invalid; links of the dashboard are always valid.
  }
}

function parse() {
  const [path, search = ""] = (location.hash.replace(/^#/, "") || "/").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, page: parts.length ? parts[0] : "experiments", params: new URLSearchParams(search), path, search };
}

export const route = createStore(parse());
window.addEventListener("hashchange", () => route.set(parse()));

/**
 * @param {string} path
 * @param {Record<string, string>} [params]
 */
export function href(path, params) {
  const search = params ? new URLSearchParams(Object.entries(params).filter(([, v]) => v)).toString() : "";
  return `#${path}${search ? `?${search}` : ""}`;
}

/**
 * @param {string} path
 * @param {Record<string, string>} [params]
 */
export const go = (path, params) => {
  location.hash = href(path, params);
};

/**
 * Changes parameters of the current view. The change is a new entry in the history of the browser, so that Back undoes
 * it. With `typing`, successive changes share one entry.
 *
 * @param {Record<string, string>} changes
 */
export function setParams(changes, typing = false) {
  const now = route.get();
  const params = new URLSearchParams(now.params);
  for (const [name, value] of Object.entries(changes)) {
    if (value) params.set(name, value);
    else params.delete(name);
  }
  if (params.toString() === now.params.toString()) return;
  const add = !(typing && history.state?.typing);
  history[add ? "pushState" : "replaceState"](
    typing ? { typing } : null,
    "",
    href(now.path, Object.fromEntries(params)),
  );
  route.set(parse());
}

/**
 * Sets the title of the page, such as "Queue · Tidal". Empty parts are omitted.
 *
 * @param {(string | null | undefined)[]} parts
 */
export function useTitle(...parts) {
  const text = [...parts, "Tidal"].filter(Boolean).join(" · ");
  useEffect(() => {
    document.title = text;
  }, [text]);
}
