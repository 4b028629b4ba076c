// Shows the result of an ablation: mean and 95 % confidence interval of each policy and of the differences between
// policies.
import { html, useState } from "../lib/html.js";
import { count, number } from "../lib/format.js";

/** @type {Record<string, number>} */
export const COLOURS = { learned: 1, random: 2, fixed: 3, best_constant: 4 };
const OWN_FIELDS = ["total", "modulation", "length"]; // fields of `row`; the others are in `row.components`

/**
 * @param {Api.AblationRow} row
 * @param {string} quantity
 * @returns {Api.Interval | undefined}
 */
export const pick = (row, quantity) =>
  OWN_FIELDS.includes(quantity) ? row[/** @type {Api.Quantity} */ (quantity)] : row.components?.[quantity];

/** @param {{result: Api.Ablation}} props */
export function Ablation({ result }) {
  const [quantity, setQuantity] = useState("total");
  const policies = Object.entries(result.policies ?? {});
  const paired = Object.entries(result.paired ?? {});
  if (!policies.length) return html`<pre class="card mono">${JSON.stringify(result, null, 2)}</pre>`;
  const quantities = ["total", ...Object.keys(policies[0][1].components ?? {}), "modulation", "length"].filter((name) =>
    pick(policies[0][1], name),
  );
  return html`<section class="stack" aria-label="Ablation">
    <div class="card stack">
      <header class="row apart">
        <h2>Did the controller beat its baselines?</h2>
        <label class="row note"
          >Quantity
          <select class="short" value=${quantity} onChange=${(event) => setQuantity(event.target.value)}>
            ${quantities.map(
              (name) =>
                html`<option value=${name} selected=${name === quantity}>
                  ${name === "total" ? "total reward" : name}
                </option>`,
            )}
          </select>
        </label>
      </header>
      ${result.conclusion && html`<p>${result.conclusion}</p>`}
      <${Bars}
        rows=${policies.map(([name, row]) => ({
          name: name.replaceAll("_", " "),
          ...pick(row, quantity),
          colour: COLOURS[name] ?? 8,
        }))}
        zero
      />
      ${
        paired.length > 0 &&
        html`<h3>Differences between policies on the same prompts</h3>
          <${Bars}
            rows=${paired.map(([name, row]) => ({
              name: name.replaceAll("_", " "),
              ...pick(row, quantity),
              colour: 1,
            }))}
            zero
            signed
          />`
      }
      <p class="note">
        Bars show means per token; whiskers show 95 % bootstrap confidence intervals.
        ${
          result.conditions &&
          ` ${count(result.conditions.prompts, "prompt")}, episodes of up to ${count(
            result.conditions.max_length,
            "token",
          )}, seed ${result.conditions.seed}.`
        }
        ${
          result.best_constant &&
          ` The best constant, m = ${number(result.best_constant.modulation)}, is the best of ${
            result.best_constant.grid.length
          } on ${count(result.conditions?.development_prompts ?? 0, "other prompt")}.`
        }
      </p>
    </div>
  </section>`;
}

/**
 * Shows horizontal bars with confidence intervals, and beside each bar its numbers, for readers who cannot see the bar.
 *
 * @param {{rows: ({name: string, colour: number} & Api.Interval)[], zero?: boolean, signed?: boolean}} props
 */
export function Bars({ rows, zero, signed }) {
  const ends = rows.flatMap((row) => [row.mean, row.ci_low, row.ci_high]).filter((value) => Number.isFinite(value));
  let low = Math.min(...ends, ...(zero ? [0] : []));
  let high = Math.max(...ends, ...(zero ? [0] : []));
  const room = (high - low || 1) * 0.05;
  if (low < 0) low -= room;
  if (high > 0) high += room;
  /** @param {number} value */
  const at = (value) => (100 * (value - low)) / (high - low || 1);
  return html`<div class="bars">
    ${rows.map(({ name, mean, ci_low: from, ci_high: to, colour }) => {
      const [left, right] = [Math.min(at(mean), at(0)), Math.max(at(mean), at(0))];
      return html`<div class="bar-row" key=${name}>
        <span class="bar-name">${name}</span>
        <svg viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
          <rect
            x=${left}
            y="5"
            width=${Math.max(right - left, 0.2)}
            height="14"
            fill=${`var(--chart-${colour})`}
            opacity="0.32"
          />
          <line x1=${at(0)} x2=${at(0)} y1="0" y2="24" class="zero" />
          <line x1=${at(from)} x2=${at(to)} y1="12" y2="12" class="whisker" stroke=${`var(--chart-${colour})`} />
          ${[from, to].map(
            (end) =>
              html`<line
                x1=${at(end)}
                x2=${at(end)}
                y1="7"
                y2="17"
                class="whisker"
                stroke=${`var(--chart-${colour})`}
              />`,
          )}
          <line x1=${at(mean)} x2=${at(mean)} y1="4" y2="20" class="mean" stroke=${`var(--chart-${colour})`} />
        </svg>
        <span class="bar-value"
          >${signed && mean > 0 ? "+" : ""}${number(mean)}${" "}
          <span class="note">${number(from)} to ${number(to)}</span></span
        >
      </div>`;
    })}
  </div>`;
}
