// Shows a chart for each metric of an experiment that has points. All charts share smoothing, cursor and zoom.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { isTemporary } from "../lib/api.js";
import { createStore, useStore } from "../lib/store.js";
import { chartsFor } from "../charts/catalog.js";
import { useZoomPoints } from "../charts/zoom-points.js";
import { linesOf } from "../charts/lines.js";
import { ChartCard } from "../charts/chart-card.js";
import { Empty, Failed, Loading, Time } from "../components/parts.js";

const MAX_POINTS = 2000;
const SMOOTHING = 0.9;
const SMOOTHING_OF_FEW_POINTS = 0.6;
const FEW_POINTS = 200;

/**
 * @param {Ui.Run & {file: string, loaded: boolean, error: Ui.Failure | null, ended: boolean,
 * deletedAt: string | null}} props
 */
export function Charts({ store, path, file, loaded, error, ended, deletedAt }) {
  const [version, setVersion] = useState(store.version);
  const [chosen, setWeight] = useState(null);
  const zoom = useMemo(() => createStore(/** @type {Ui.Range | null} */ (null)), [store]);
  useEffect(() => {
    setVersion(store.version);
    return store.watch(setVersion);
  }, [store]);
  useZoomPoints([{ store, path }], zoom, MAX_POINTS);
  const charts = useMemo(
    () =>
      chartsFor(
        (kind, name) => store.get(kind, name)?.x.length,
        (kind) => store.names(kind),
      ),
    [version],
  );
  const longest = Math.max(0, ...[...store.series.values()].map(({ x }) => x.length));
  const weight = chosen ?? (longest < FEW_POINTS ? SMOOTHING_OF_FEW_POINTS : SMOOTHING);
  if (!loaded && error && !isTemporary(error)) return html`<${Failed} error=${error} />`;
  if (!loaded) return html`<${Loading} rows=${6} />`;
  if (!charts.length) {
    return html`<${Empty} title=${ended ? "There are no metrics" : "No points yet"}>
      <p>
        ${
          deletedAt
            ? html`Metrics and log were deleted <${Time} at=${deletedAt} />, because they were too old.`
            : ended
              ? "The job ended before its first step."
              : "Metrics appear here after the first step."
        }
      </p>
    <//>`;
  }
  return html`
    <${ChartTools} weight=${weight} setWeight=${setWeight} zoom=${zoom} />
    <div class="charts">
      ${charts.map((chart) => {
        const { lines, bands, diverged } = linesOf(chart, store, weight);
        return html`<${ChartCard}
          key=${chart.id}
          ...${chart}
          unit=${bands.length ? "band: ± one standard deviation" : chart.unit}
          lines=${lines}
          bands=${bands}
          diverged=${diverged}
          zoom=${zoom}
          sync="experiment"
          file=${file}
        />`;
      })}
    </div>
  `;
}

/**
 * Shows the zoomed range as two number fields. With these, the user can zoom on touch screens or with a keyboard, and
 * can enter an exact range.
 *
 * @param {{range: Ui.Range | null, zoom: Ui.Zoom}} props
 */
function Steps({ range, zoom }) {
  /** @type {(name: "min" | "max", other: number) => Ui.Handler} */
  const set = (name, other) => (event) => {
    const value = event.target.value === "" ? null : Number(event.target.value);
    const next = { min: 0, max: Number.MAX_SAFE_INTEGER, ...range, [name]: value ?? other };
    zoom.set(next.min < next.max && (range || value !== null) ? next : null);
  };
  /** @param {number} value */
  const shown = (value) => (value > 0 && value < Number.MAX_SAFE_INTEGER ? String(Math.round(value)) : "");
  return html`<span class="smoothing">
    Steps
    <input
      type="number"
      min="0"
      aria-label="From step"
      placeholder="first"
      value=${range ? shown(range.min) : ""}
      onChange=${set("min", 0)}
    />
    to
    <input
      type="number"
      min="0"
      aria-label="To step"
      placeholder="last"
      value=${range ? shown(range.max) : ""}
      onChange=${set("max", Number.MAX_SAFE_INTEGER)}
    />
  </span>`;
}

/** @param {{weight: number, setWeight: (weight: number) => void, zoom: Ui.Zoom, children?: Ui.Children}} props */
export function ChartTools({ weight, setWeight, zoom, children }) {
  const range = useStore(zoom);
  return html`<div class="chart-bar">
    <label class="smoothing">
      Smoothing
      <input
        type="range"
        min="0"
        max="0.99"
        step="0.01"
        value=${weight}
        onInput=${(event) => setWeight(Number(event.target.value))}
      />
      <output>${weight.toFixed(2)}</output>
    </label>
    <${Steps} range=${range} zoom=${zoom} />
    ${children}
    ${
      range
        ? html`<button class="button small" onClick=${() => zoom.set(null)}>Reset zoom</button>`
        : html`<span class="note">Drag over a chart to zoom all charts; double-click to reset.</span>`
    }
  </div>`;
}
