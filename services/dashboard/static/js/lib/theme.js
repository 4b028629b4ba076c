// The colour theme: light, dark, or that of the system. Charts watch the store `theme` to use the new colours.
import { createStore } from "./store.js";

const KEY = "tidal.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

const chosen = () => document.documentElement.dataset.theme ?? "system";
const effective = () => (chosen() === "system" ? (system.matches ? "dark" : "light") : chosen());

export const theme = createStore({ chosen: chosen(), effective: effective() });
system.addEventListener("change", () => theme.set({ chosen: chosen(), effective: effective() }));

/** @param {string} value */
export function setTheme(value) {
  if (value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  try {
    if (value === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, value);
  } catch {
    // The browser forbids storage; the choice is lost when the page is closed.
  }
  theme.set({ chosen: value, effective: effective() });
}

/**
 * Returns the value of a CSS custom property, for drawing on a canvas.
 *
 * @param {string} name
 */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
