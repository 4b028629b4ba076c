// Which view is shown: the fragment of the address, `#/experiments/<id>?tab=logs`. One document, so any sub-path works.
import { createStore } from "./store.js";

function parse() {
  const [path, search = ""] = (location.hash.replace(/^#/, "") || "/").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { parts, page: parts[0] || "experiments", params: new URLSearchParams(search), path };
}

export const route = createStore(parse());
window.addEventListener("hashchange", () => route.set(parse()));

export function href(path, params) {
  const search = params ? new URLSearchParams(Object.entries(params).filter(([, v]) => v)).toString() : "";
  return `#${path}${search ? `?${search}` : ""}`;
}

export const go = (path, params) => {
  location.hash = href(path, params);
};

/** Change parameters of the present view without a new entry in the history. */
export function setParams(changes) {
  const now = route.get();
  const params = new URLSearchParams(now.params);
  for (const [name, value] of Object.entries(changes)) {
    if (value) params.set(name, value);
    else params.delete(name);
  }
  const search = params.toString();
  history.replaceState(null, "", `#${now.path}${search ? `?${search}` : ""}`);
  route.set(parse());
}
