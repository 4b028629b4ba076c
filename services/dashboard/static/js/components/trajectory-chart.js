// Charts of modulation, entropy, probability and temperature by token, for one or two generated texts.
import { html, useState } from "../lib/html.js";
import { ChartCard } from "../charts/chart-card.js";

/** @type {Record<string, [title: string, value: (token: Api.Token) => number | null, range?: [number, number]]>} */
const QUANTITIES = {
  modulation: ["Modulation", (token) => token.modulation, [0, 1]],
  entropy: ["Entropy", (token) => token.entropy],
  samplingEntropy: ["Sampling entropy", (token) => token.samplingEntropy],
  probability: ["Probability", (token) => Math.exp(token.logProb), [0, 1]],
  temperature: ["Temperature", (token) => token.temperature],
};

/**
 * Shows a chart with a line for each element of `runs`: [{label, tokens}].
 *
 * @param {{runs: {label: string, tokens: Api.Token[]}[]}} props
 */
export function TrajectoryChart({ runs }) {
  const modulated = runs.some((run) => run.tokens.some((token) => token.modulation !== null));
  const [chosen, setChosen] = useState(/** @type {string | null} */ (null));
  const quantity = chosen ?? (modulated ? "modulation" : "entropy");
  const [title, value, range] = QUANTITIES[quantity];
  const lines = runs.flatMap(({ label, tokens }, i) => {
    const found = tokens.map((token, at) => [at + 1, value(token)]).filter(([, y]) => y !== null && y !== undefined);
    return found.length ? [{ label, x: found.map(([x]) => x), y: found.map(([, y]) => y), colour: i + 1 }] : [];
  });
  return html`<section class="stack" aria-label="Trajectory">
    <div class="row">
      <h2>Trajectory</h2>
      <select
        class="short"
        aria-label="Quantity"
        value=${quantity}
        onChange=${(event) => setChosen(event.target.value)}
      >
        ${Object.entries(QUANTITIES).map(
          ([name, [text]]) => html`<option value=${name} selected=${name === quantity}>${text}</option>`,
        )}
      </select>
    </div>
    ${
      lines.length
        ? html`<${ChartCard}
            key=${quantity}
            title=${title}
            unit="by token"
            lines=${lines}
            range=${range}
            file="trajectory"
            height=${200}
          />`
        : html`<p class="note">
            ${quantity === "modulation" ? "No modulation: the gating mode is none." : "No tokens yet."}
          </p>`
    }
  </section>`;
}
