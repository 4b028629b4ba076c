// The table of the texts that a training generated every few steps: one row per step, one column per prompt.
import { html } from "../lib/html.js";
import { get, query } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { integer } from "../lib/format.js";
import { Loaded } from "./parts.js";

const MAX_ROWS = 200;

/**
 * The table is loaded again when `changed` changes.
 *
 * @param {{path: Api.ExperimentPath, changed: unknown}} props
 */
export function SampleHistory({ path, changed }) {
  const state = useLoad(
    (signal) => get(`${path}/sample-history${query({ maxRows: MAX_ROWS })}`, signal),
    [path, changed],
  );
  return html`<${Loaded} state=${state}>
    ${(/** @type {Ui.Data<typeof state>} */ { rows, total }) => {
      const prompts = [...new Set(rows.flatMap((row) => row.samples.map((sample) => sample.prompt)))];
      return html`<section class="stack" aria-label="Samples over the steps">
        <div class="card flush table-wrap">
          <header><h2>Samples over the steps</h2></header>
          <table class="sample-history">
            <thead>
              <tr>
                <th class="num">Step</th>
                ${prompts.map((prompt) => html`<th>${prompt || "(new document)"}</th>`)}
              </tr>
            </thead>
            <tbody>
              ${[...rows].reverse().map(
                (row) =>
                  html`<tr key=${row.step}>
                    <td class="num">${integer(row.step)}</td>
                    ${prompts.map(
                      (prompt) =>
                        html`<td>${row.samples.find((sample) => sample.prompt === prompt)?.generated ?? "–"}</td>`,
                    )}
                  </tr>`,
              )}
            </tbody>
          </table>
        </div>
        <p class="note">
          All texts of a column have the same prompt and the same seed.
          ${rows.length < total && ` ${integer(rows.length)} of ${integer(total)} stored steps are shown.`}
        </p>
      </section>`;
    }}
  <//>`;
}
