// Shows what policies could gain over the best constant modulation: the verdict, the reward by modulation, the gains.
import { html } from "../lib/html.js";
import { count, number } from "../lib/format.js";
import { ChartCard } from "../charts/chart-card.js";
import { Bars } from "./ablation.js";

/** @param {{result: Api.Headroom}} props */
export function Headroom({ result }) {
  const { best_constant: best, conditions } = result;
  return html`<section class="stack" aria-label="Headroom">
    <div class="card stack">
      <h2>What could a controller gain?</h2>
      <p>${result.verdict} ${result.advice}</p>
      <h3>Gain over the best constant, per token</h3>
      <${Bars}
        rows=${Object.entries(result.policies).map(([name, row]) => ({
          name: name.replaceAll("_", " "),
          ...row.gain,
          colour: name === "oracle" ? 8 : 1,
        }))}
        zero
        signed
      />
      <p class="note">
        The best constant, m = ${number(best.modulation)}, has ${number(best.reward.mean)} per token. Policies are
        fitted to one half of ${count(conditions.documents, "document")} and evaluated on the other
        (${count(conditions.contexts, "context")}); the oracle knows the best m of each token. Whiskers show 95 %
        intervals by document.
      </p>
    </div>
    <${ChartCard}
      title="Reward by constant modulation"
      unit="by modulation"
      lines=${[{ label: "reward", x: result.modulations, y: result.rewards, colour: 1 }]}
      file="headroom"
      height=${200}
    />
  </section>`;
}
