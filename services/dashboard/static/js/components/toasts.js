// Short messages at the edge of the page, which screen readers read aloud and which disappear after a few seconds.
import { html } from "../lib/html.js";
import { createStore, useStore } from "../lib/store.js";
import { Icon } from "./icons.js";

const SHOWN_MS = 7000;
const toasts = createStore(/** @type {{id: number, text: string, kind: string}[]} */ ([]));
let last = 0;

/** @param {string} text */
export function toast(text, kind = "good") {
  const id = (last += 1);
  toasts.set((all) => [...all.slice(-2), { id, text, kind }]);
  setTimeout(() => dismiss(id), SHOWN_MS);
}

/** @param {number} id */
const dismiss = (id) => toasts.set((all) => all.filter((message) => message.id !== id));

export function Toasts() {
  const all = useStore(toasts);
  return html`<div class="toasts" aria-live="polite">
    ${all.map(
      ({ id, text, kind }) =>
        html`<div class=${`message ${kind}`} key=${id}>
          <span>${text}</span>
          <button class="button quiet small" aria-label="Dismiss" onClick=${() => dismiss(id)}>
            <${Icon} name="cross" />
          </button>
        </div>`,
    )}
  </div>`;
}
