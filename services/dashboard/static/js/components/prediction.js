// What a pretraining will need, predicted before its start, and the comparison with what it has needed.
import { html } from "../lib/html.js";
import { bytes, compact, count, duration, integer } from "../lib/format.js";

/**
 * Shows the predicted parameters, memory and duration in the form of a new job.
 *
 * @param {{prediction: Api.TrainingPrediction}} props
 */
export function Prediction({ prediction }) {
  return html`<section class="stack" aria-label="Prediction">
    <dl class="facts">
      <dt>Parameters</dt>
      <dd>${integer(prediction.parameters)}</dd>
      ${
        prediction.steps !== null &&
        html`<dt>Work</dt>
          <dd>${count(prediction.steps, "step")}, ${compact(prediction.tokens)} tokens</dd>`
      }
    </dl>
    ${prediction.machines.map((machine) => html`<${Machine} key=${machine.machine} machine=${machine} />`)}
    ${prediction.notes.map((note) => html`<p class="note" key=${note}>${note}</p>`)}
  </section>`;
}

/** @param {{machine: Api.MachinePrediction}} props */
function Machine({ machine }) {
  return html`<div class="stack">
    <strong>${machine.description}</strong>
    <dl class="facts">
      <dt>Peak memory</dt>
      <dd>${memory(machine)}</dd>
      <dt>Duration</dt>
      <dd>${machine.durationSeconds === null ? "unknown" : `about ${duration(machine.durationSeconds)}`}</dd>
      ${
        machine.tokensPerSecond !== null &&
        html`<dt>Speed</dt>
          <dd>${compact(Math.round(machine.tokensPerSecond))} tokens/s</dd>`
      }
    </dl>
    ${machine.warnings.map((text) => html`<p class="message bad" key=${text}>${text}</p>`)}
    ${machine.basis && html`<p class="note">From: ${machine.basis}.</p>`}
    ${machine.notes.map((text) => html`<p class="note" key=${text}>${text}</p>`)}
  </div>`;
}

/** @param {Api.MachinePrediction} machine */
function memory({ memoryBytes, memoryLimitBytes }) {
  if (memoryBytes === null) return "unknown";
  return memoryLimitBytes === null
    ? `about ${bytes(memoryBytes)}`
    : `about ${bytes(memoryBytes)} of ${bytes(memoryLimitBytes)}`;
}

/**
 * Shows on the page of a job what was predicted at its submission and, after its end, what it has needed.
 *
 * @param {{job: Api.Job}} props
 */
export function Comparison({ job }) {
  const { prediction, measurement } = job;
  if (!prediction) return null;
  const machine = measurement
    ? prediction.machines.find((candidate) => candidate.machine === measurement.machine)
    : prediction.machines[0];
  if (!machine && !measurement) return null;
  const whole = measurement && !measurement.resumed;
  const rows = [
    ["Duration", show(machine?.durationSeconds, duration), show(whole ? measurement.seconds : null, duration)],
    ["Peak memory", show(machine?.memoryBytes, bytes), show(measurement?.memoryBytes, bytes)],
    ["Tokens per second", show(machine?.tokensPerSecond, rate), show(measurement?.tokensPerSecond, rate)],
    ["Steps", show(prediction.steps, integer), show(measurement?.steps, integer)],
  ];
  return html`<details class="comparison">
    <summary>Prediction and measurement</summary>
    <div class="table-wrap">
      <table>
        <thead>
          <tr>
            <th>${integer(prediction.parameters)} parameters</th>
            <th class="num">Predicted</th>
            <th class="num">Measured</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            ([name, predicted, measured]) =>
              html`<tr key=${name}>
                <td>${name}</td>
                <td class="num">${predicted}</td>
                <td class="num">${measured}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    ${
      measurement?.resumed &&
      html`<p class="note">The job was resumed, so the measured steps are those of its last attempt.</p>`
    }
    ${machine?.basis && html`<p class="note">Predicted from: ${machine.basis}.</p>`}
    ${machine?.warnings.map((text) => html`<p class="message warn" key=${text}>${text}</p>`)}
  </details>`;
}

/** @param {number} value */
const rate = (value) => integer(value);

/**
 * @param {number | null | undefined} value
 * @param {(value: number) => string} format
 */
const show = (value, format) => (value === null || value === undefined ? "–" : format(value));
