// The charts of one experiment: those of the catalogue that have points, with one smoothing, cursor and zoom for all.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { createStore, useStore } from "../lib/store.js";
import { chartsFor } from "../charts/catalog.js";
import { linesOf } from "../charts/lines.js";
import { ChartCard } from "../charts/chart-card.js";
import { Empty, Failed, Loading } from "../components/parts.js";
import { integer } from "../lib/format.js";

const SMOOTHING = 0.9;
const SMOOTHING_OF_FEW = 0.6;
const FEW = 200;

export function Charts({ store, file, loaded, error, ended }) {
  const [version, setVersion] = useState(store.version);
  const [chosen, setWeight] = useState(null);
  const zoom = useMemo(() => createStore(null), [store]);
  useEffect(() => {
    setVersion(store.version);
    return store.watch(setVersion);
  }, [store]);
  const charts = useMemo(() => chartsFor((kind, name) => store.get(kind, name)?.x.length, (kind) => store.names(kind)), [version]);
  const longest = Math.max(0, ...[...store.series.values()].map(({ x }) => x.length));
  const weight = chosen ?? (longest < FEW ? SMOOTHING_OF_FEW : SMOOTHING);
  if (!loaded && error && error.status !== 0) return html`<${Failed} error=${error} />`;
  if (!loaded) return html`<${Loading} rows=${6} />`;
  if (!charts.length) {
    return html`<${Empty} title=${ended ? "It left no metrics" : "No points yet"}>
      <p>${ended ? "The job ended before its first step." : "They appear here by themselves with the first step."}</p>
    <//>`;
  }
  return html`
    <${ChartTools} weight=${weight} setWeight=${setWeight} zoom=${zoom} />
    <div class="charts">
      ${charts.map((chart) => {
        const { lines, bands } = linesOf(chart, store, weight);
        return html`<${ChartCard} key=${chart.id} ...${chart} lines=${lines} bands=${bands} zoom=${zoom} sync="experiment" file=${file} />`;
      })}
    </div>
  `;
}

export function ChartTools({ weight, setWeight, zoom, children }) {
  const range = useStore(zoom);
  return html`<div class="chart-bar">
    <label class="smoothing">
      Smoothing
      <input type="range" min="0" max="0.99" step="0.01" value=${weight} onInput=${(event) => setWeight(Number(event.target.value))} />
      <output>${weight.toFixed(2)}</output>
    </label>
    ${children}
    ${range
      ? html`<button class="button small" onClick=${() => zoom.set(null)}>
          Whole range instead of ${integer(range.min)} to ${integer(range.max)}
        </button>`
      : html`<span class="note">Drag over a chart to zoom all of them; a double click shows everything.</span>`}
  </div>`;
}
