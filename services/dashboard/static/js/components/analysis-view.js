// Shows the result of an analysis: the course of the modulation in the texts of each prompt, the comparison of prompts,
// and the texts at each constant modulation.
import { html } from "../lib/html.js";
import { count, duration, number } from "../lib/format.js";
import { ChartCard } from "../charts/chart-card.js";
import { Scale, tint } from "./token-text.js";

const QUARTERS = ["Q1", "Q2", "Q3", "Q4"];
/**
 * @template T
 * @param {Record<string, T>} byName
 */
const first = (byName) => Object.values(byName ?? {})[0];
/** @param {string} name */
const column = (name) => ["mean", "std", "min", "q25", "q50", "q75", "max"].indexOf(name) + 1 || 99;

/** @param {{result: Api.Analysis}} props */
export function AnalysisView({ result }) {
  return html`<div class="stack">
    ${result.batchAnalysis && html`<${Between} batch=${result.batchAnalysis} prompts=${result.trajectories} />`}
    ${result.trajectories.map(
      (trajectory) =>
        html`<${Trajectory}
          key=${trajectory.prompt}
          trajectory=${trajectory}
          open=${result.trajectories.length < 4}
        />`,
    )}
    ${result.sweepAnalysis && html`<${Sweep} sweep=${result.sweepAnalysis} />`}
    <p class="note">${count(result.tokensGenerated, "token")} in ${duration(result.elapsedMs / 1000)}.</p>
  </div>`;
}

/** @param {{batch: Api.BatchAnalysis, prompts: Api.Trajectory[]}} props */
function Between({ batch, prompts }) {
  const spread = first(batch.crossPromptVariance);
  const strategy = first(batch.strategyCharacterization);
  /**
   * @param {string} name
   * @param {number} value
   * @param {Api.Bounds} [interval]
   */
  const row = (name, value, interval) =>
    html`<tr>
      <td>${name}</td>
      <td class="num">${number(value)}</td>
      <td class="num">${interval ? `${number(interval[0])} to ${number(interval[1])}` : ""}</td>
    </tr>`;
  /** @type {[prompt: string, mean: number][]} */
  const means = prompts.map(({ prompt, analysis }) => [prompt, first(analysis.signalStats).mean]);
  return html`<section class="card stack" aria-label="Across prompts">
    <h2>Across prompts</h2>
    <p class="note">
      If the controller adapts to the prompt, the variance between prompts is larger than the variance within a prompt.
    </p>
    <div class="columns">
      <div class="table-wrap">
        <table>
          <thead>
            <tr>
              <th>Modulation</th>
              <th class="num">Value</th>
              <th class="num">95 % interval</th>
            </tr>
          </thead>
          <tbody>
            ${row("Variance between prompts", spread.betweenPromptVar, spread.confidenceIntervals?.betweenPromptVar)}
            ${row("Variance within prompts", spread.withinPromptVar, spread.confidenceIntervals?.withinPromptVar)}
            ${row("Mean of the prompts' means", strategy.globalMean, strategy.confidenceIntervals?.globalMean)}
            ${row(
              "Standard deviation of the prompts' means",
              strategy.globalStd,
              strategy.confidenceIntervals?.globalStd,
            )}
          </tbody>
        </table>
      </div>
      <div class="bars">
        ${means.map(
          ([prompt, mean]) =>
            html`<div class="mean-row" key=${prompt}>
              <span>${prompt || "(new document)"}</span
              ><span class="progress"><span style=${{ width: `${100 * mean}%` }}></span></span><b>${number(mean, 3)}</b>
            </div>`,
        )}
      </div>
    </div>
  </section>`;
}

/** @param {{trajectory: Api.Trajectory, open: boolean}} props */
function Trajectory({ trajectory, open }) {
  const { analysis, samples } = trajectory;
  const stats = first(analysis.signalStats);
  const windows = first(analysis.signalEvolution);
  const ends = first(analysis.tokenSignalAlignment);
  const names = Object.keys(stats).sort((a, b) => column(a) - column(b));
  const lines = samples.slice(0, 8).map((sample, i) => ({
    label: samples.length > 1 ? `seed ${sample.seed}` : "modulation",
    x: sample.modulation.map((_, at) => at + 1),
    y: sample.modulation,
    colour: i + 1,
  }));
  return html`<details class="card trajectory" open=${open}>
    <summary>
      <h2>${trajectory.prompt || "(new document)"}</h2>
      <span class="note">mean ${number(stats.mean, 3)}, deviation ${number(stats.std, 3)}</span>
    </summary>
    <div class="stack">
      <${ChartCard} title="Modulation" unit="by token" lines=${lines} range=${[0, 1]} height=${180} file="analysis" />
      <div class="columns">
        <div class="table-wrap">
          <table>
            <thead>
              <tr>
                <th>Part</th>
                ${names.map((name) => html`<th class="num">${name}</th>`)}
              </tr>
            </thead>
            <tbody>
              <tr>
                <td>All</td>
                ${names.map((name) => html`<td class="num">${number(stats[name], 3)}</td>`)}
              </tr>
              ${windows.map(
                (part, i) =>
                  html`<tr key=${i}>
                    <td>${QUARTERS[i]}</td>
                    ${names.map((name) => html`<td class="num">${number(part[name], 3)}</td>`)}
                  </tr>`,
              )}
            </tbody>
          </table>
        </div>
        <div class="stack tight">
          <p class="note">
            ${
              analysis.phases.length
                ? `The modulation changes at ${analysis.phases
                    .map((phase) => `${phase.windowBoundary} (t ${number(phase.tStatistic, 3)})`)
                    .join(", ")}.`
                : "Neighbouring quarters do not differ: no difference has |t| > 2 and is at least 0.05."
            }
          </p>
          <${Ends} title="Tokens with the lowest modulation:" tokens=${ends.lowTokens} /><${Ends}
            title="Tokens with the highest modulation:"
            tokens=${ends.highTokens}
          />
        </div>
      </div>
      ${samples.map(
        (sample) =>
          html`<p class="generated small" key=${sample.seed}>
            <span class="prompt">${trajectory.prompt}</span>${sample.tokenTexts.map(
              (text, i) =>
                html`<span
                  class="tok"
                  key=${i}
                  title=${number(sample.modulation[i], 3)}
                  style=${{ background: tint(sample.modulation[i]) }}
                  >${text}</span
                >`,
            )}
          </p>`,
      )}
      <${Scale} />
    </div>
  </details>`;
}

/** @param {{title: string, tokens: Api.AlignedToken[]}} props */
const Ends = ({ title, tokens }) =>
  html`<p class="ends">
    <span class="note">${title}</span>
    ${tokens
      .slice(0, 14)
      .map(
        (token) =>
          html`<span
            class="tok mono"
            title=${`token ${token.position + 1}, m ${number(token.value, 3)}`}
            style=${{ background: tint(token.value) }}
            >${token.tokenText.replaceAll("\n", "⏎")}</span
          >`,
      )}
  </p>`;

const MEASURES = { wordCount: "Words", uniqueWordRatio: "Unique words", charCount: "Characters" };

/** @param {{sweep: Api.SweepAnalysis}} props */
function Sweep({ sweep }) {
  return html`<section class="card stack" aria-label="Sweep">
    <h2>Modulation from 0 to 1</h2>
    <p class="note">
      Texts generated with the same seed at three modulations. Mean change from modulation 0 to 1:${" "}
      ${Object.entries(MEASURES)
        .map(([name, text]) => `${text.toLowerCase()} ${number(sweep.meanDeltas[name], 3)}`)
        .join(", ")}.
    </p>
    ${sweep.prompts.map(
      (row) =>
        html`<article class="stack tight" key=${row.prompt}>
          <h3>${row.prompt || "(new document)"}</h3>
          <div class="sweep">
            ${Object.entries(row.texts).map(
              ([m, text]) =>
                html`<div class="sweep-text" style=${{ background: tint(Number(m)) }} key=${m}>
                  <b>m = ${m}</b>
                  <p>${text}</p>
                  <span
                    >${Object.entries(MEASURES)
                      .map(([name, label]) => `${label.toLowerCase()} ${number(row.statistics[m][name], 3)}`)
                      .join(" · ")}</span
                  >
                </div>`,
            )}
          </div>
        </article>`,
    )}
  </section>`;
}
