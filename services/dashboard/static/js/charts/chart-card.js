// A chart with its title, export buttons, a switch for the log scale, and a legend. The legend shows the values at the
// cursor, and its buttons show or hide lines.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { exact, number } from "../lib/format.js";
import { Plot, same } from "./plot.js";
import { lastAt } from "./series.js";
import { saveCsv, savePng } from "./export.js";

/** @param {string} text */
const slug = (text) =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");

/**
 * Returns the largest step of all lines.
 *
 * @param {Ui.Line[]} lines
 */
const end = (lines) => Math.max(0, ...lines.map((line) => line.x.at(-1) ?? 0));

/**
 * Returns [value, where] of a line at `step` as texts. If the line has no point at `step`, the last earlier point is
 * used and `where` names the step of this point; otherwise `where` is empty.
 *
 * @param {Ui.Line} line
 * @param {number} step
 * @returns {[value: string, where: string]}
 */
function read({ x, y }, step) {
  const at = lastAt(x, step);
  return at < 0 ? ["–", ""] : [number(y[at]), x[at] === step ? "" : `at ${exact(x[at])}`];
}

/** @param {Ui.Diverged} diverged */
const notFinite = ({ label, step }) => `${label} diverged: NaN or infinite from step ${exact(step)}.`;

/**
 * Returns a description of the chart for screen readers: the last value of each line, and the metrics that diverged.
 *
 * @param {string} title
 * @param {Ui.Line[]} lines
 * @param {Ui.Diverged[]} diverged
 */
function description(title, lines, diverged) {
  const step = end(lines);
  const parts = lines.filter((line) => line.y.length).map((line) => [line.label, ...read(line, step)].join(" ").trim());
  return `Chart of ${title}. At step ${exact(step)}: ${parts.join(", ") || "no points yet"}. ${diverged
    .map((metric) => `${notFinite(metric)} `)
    .join("")}Use the arrow keys to move the cursor.`;
}

/**
 * Changes the text of an element without replacing its text node, because Preact would not update a new node.
 *
 * @param {Element | null} element
 * @param {string} text
 */
function change(element, text) {
  if (element?.firstChild instanceof Text) element.firstChild.data = text;
}

/**
 * Shows a chart with its controls. `lines` are passed to `Plot`; a line with `raw: true` is not in the legend.
 * `diverged` lists the metrics that became NaN or infinite, each with the first step at which this happened. The names
 * of exported files begin with `file`.
 *
 * @param {Omit<import("./plot.js").PlotProps, "name" | "plotRef" | "onCursor"> & {
 * title: string, unit?: string, file?: string, diverged?: Ui.Diverged[]}} props
 */
export function ChartCard({
  title,
  unit,
  lines,
  zoom,
  sync,
  range,
  bands,
  file,
  height,
  xLabel,
  diverged = [],
  log: logarithmic = false,
}) {
  const [log, setLog] = useState(logarithmic);
  const [hidden, setHidden] = useState(() => /** @type {Set<string>} */ (new Set()));
  const values = useRef(/** @type {Map<string, HTMLElement>} */ (new Map()));
  const at = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {Ui.Plot | null} */ (null));
  const shown = lines.map((line) => ({ ...line, hidden: hidden.has(line.legend ?? line.label) }));
  const legend = lines.filter((line) => !line.raw);
  const canLog = lines.some((line) => line.y.some((value) => value > 0));
  const newest = end(legend);
  const apart = legend.some((line) => !same(line.x, legend[0].x)); // whether the legend needs room for steps

  /** @type {Ui.OnCursor} */
  const onCursor = (index, made) => {
    const step = (index === null ? undefined : made.data[0][index]) ?? newest;
    for (const line of legend) {
      const value = values.current.get(line.label);
      if (!value) continue;
      const [text, where] = read(line, step);
      change(value, text);
      change(value.nextElementSibling, where);
    }
    if (at.current) at.current.textContent = index === null ? "" : `at ${exact(step)}`;
  };
  useEffect(() => {
    // When points arrive while the cursor is in the chart, the legend must keep showing the values at the cursor.
    if (plot.current) onCursor(plot.current.cursor.idx ?? null, plot.current);
  });
  /** @param {string} label */
  const toggle = (label) =>
    setHidden((old) => {
      const next = new Set(old);
      if (!next.delete(label)) next.add(label);
      return next;
    });
  const name = slug(`${file ?? "tidal"}-${title}`);
  return html`<section class="card chart-card" aria-label=${title}>
    <header>
      <h3>${title} ${unit && html`<span class="note">${unit}</span>`} <span class="note" ref=${at}></span></h3>
      <div class="chart-tools">
        <button class="button quiet small" aria-pressed=${log} disabled=${!canLog} onClick=${() => setLog(!log)}>
          log
        </button>
        <button class="button quiet small" aria-label=${`${title}: save as CSV`} onClick=${() => saveCsv(lines, name)}>
          CSV
        </button>
        <button
          class="button quiet small"
          aria-label=${`${title}: save as PNG`}
          onClick=${() => plot.current && savePng(plot.current, title, legend, name)}
        >
          PNG
        </button>
      </div>
    </header>
    <${Plot}
      lines=${shown}
      log=${log}
      zoom=${zoom}
      sync=${sync}
      range=${range}
      bands=${bands}
      height=${height}
      xLabel=${xLabel}
      name=${description(title, legend, diverged)}
      plotRef=${plot}
      onCursor=${onCursor}
    />
    <div class=${`legend ${apart ? "apart" : ""}`}>
      ${legend.map(
        (line) =>
          html`<button
            key=${line.label}
            aria-pressed=${!hidden.has(line.legend ?? line.label)}
            title="Show or hide this line"
            onClick=${() => toggle(line.legend ?? line.label)}
          >
            <i style=${{ "--swatch": `var(--chart-${line.colour})` }}></i><span>${line.label}</span>
            <b
              ref=${(/** @type {HTMLElement | null} */ element) =>
                element ? values.current.set(line.label, element) : values.current.delete(line.label)}
              >${read(line, newest)[0]}</b
            >
            <small>${read(line, newest)[1]}</small>
          </button>`,
      )}
    </div>
    ${diverged.map((metric) => html`<p class="message bad" key=${metric.label}>${notFinite(metric)}</p>`)}
  </section>`;
}
