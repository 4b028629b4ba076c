// Shows a generated text in which each token has the colour of its modulation. Pointing at a token shows its values.
import { html, useState } from "../lib/html.js";
import { number } from "../lib/format.js";

/**
 * Returns the colour of a modulation, interpolated between the colours for 0, 0.5 and 1.
 *
 * @param {number | null | undefined} modulation
 */
export function tint(modulation) {
  if (modulation === null || modulation === undefined) return undefined;
  const [from, to, share] = modulation < 0.5 ? ["low", "mid", modulation * 2] : ["mid", "high", (modulation - 0.5) * 2];
  return `color-mix(in oklab, var(--mod-${to}) ${Math.round(share * 100)}%, var(--mod-${from}))`;
}

/** @param {{prompt: string, tokens: Api.Token[], live: boolean}} props */
export function TokenText({ prompt, tokens, live }) {
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const pointed = at === null ? null : tokens[at];
  /** @type {Ui.Handler} */
  const point = (event) => {
    const index = event.target.dataset?.index;
    setAt(index === undefined ? null : Number(index));
  };
  return html`<div class="stack tight">
    <p class="generated" onPointerOver=${point} onPointerLeave=${() => setAt(null)} aria-live="off">
      <span class="prompt">${prompt}</span>${tokens.map(
        (token, i) =>
          html`<span
            key=${i}
            data-index=${i}
            class=${i === at ? "tok at" : "tok"}
            style=${{ background: tint(token.modulation) }}
            >${token.text}</span
          >`,
      )}${live && html`<span class="caret"></span>`}
    </p>
    <p class="note token-facts">
      ${
        pointed
          ? html`<b class="mono">${JSON.stringify(pointed.text)}</b>${facts(pointed)}`
          : "Point at a token to see its values."
      }
    </p>
  </div>`;
}

/**
 * Returns the values of a token as text.
 *
 * @param {Api.Token} token
 */
function facts(token) {
  const parts = [
    token.modulation === null ? "" : ` m ${number(token.modulation, 3)}`,
    `T ${number(token.temperature, 3)}`,
    `top-k ${token.topK ?? "–"}`,
    `top-p ${number(token.topP, 3)}`,
    `penalty ${number(token.repetitionPenalty, 3)}`,
    `p ${number(Math.exp(token.logProb), 3)}`,
    `entropy ${number(token.entropy, 3)}`,
  ];
  return parts.join(" · ");
}

export const Scale = () =>
  html`<div class="mod-scale" aria-label="Colour scale of the modulation, from 0 to 1">
    <span>modulation 0</span><i></i><span>1</span>
  </div>`;
