// A chart in a report. It shows the data that is stored now, and new points while the experiment runs.
import { Component, html, useEffect, useMemo, useState } from "../lib/html.js";
import { get } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { integer, title as nameOf } from "../lib/format.js";
import { ChartCard } from "../charts/chart-card.js";
/** @import { SeriesStore } from "../charts/series.js" */
import { acquire, divergedAt, lineOf, release } from "../charts/shared-series.js";
import { Bars, COLOURS, pick } from "./ablation.js";
import { Failed, Loading } from "./parts.js";

const FEW_POINTS = 60;
const MAX_LINES = 8;
/** @type {Record<string, string>} */
const MEASURES = { wordCount: "Words", uniqueWordRatio: "Share of distinct words", charCount: "Characters" };

/** @param {{chart: Api.Chart}} props */
export function ReportChart({ chart }) {
  const Kind = VIEWS[chart.kind];
  return html`<div class="report-chart">
    <${Guard}><${Kind} chart=${chart} /><//>
  </div>`;
}

const VIEWS = { metrics: Metrics, ablation: AblationChart, trajectory: Trajectory, sweep: Sweep };

/** Shows a message if a chart cannot be drawn, for example because another program stored an invalid result. */
class Guard extends Component {
  constructor() {
    super();
    this.state = { broken: false };
  }
  static getDerivedStateFromError() {
    return { broken: true };
  }
  render() {
    return this.state.broken
      ? html`<p class="message bad">The stored data of this chart cannot be drawn.</p>`
      : this.props.children;
  }
}

/** @param {{title: string, notes: string[], lone?: boolean}} props */
const Missing = ({ title, notes, lone = false }) =>
  notes.length > 0 &&
  html`<div class=${lone ? "card chart-missing" : "chart-notes"}>
    ${lone && html`<h3>${title}</h3>`} ${notes.map((note) => html`<p class="note" key=${note}>${note}</p>`)}
  </div>`;

/** @param {{chart: Api.ChartOf<"metrics">}} props */
function Metrics({ chart }) {
  const ids = chart.experiments;
  const states = useSeries(ids);
  const waiting = states.some((state) => !state);
  if (waiting) return html`<${Loading} rows=${3} />`;
  /** @type {Ui.Line[]} */
  const lines = [];
  /** @type {string[]} */
  const notes = [];
  for (const [i, id] of ids.entries()) {
    const state = states[i];
    if (!state) continue; // no element is missing, but the type checker does not know that
    if (state.error) {
      const { status, message } = state.error;
      notes.push(status === 404 ? `Experiment ${id} does not exist.` : `Experiment ${id}: ${message}`);
      continue;
    }
    const { found, store } = state;
    for (const metric of chart.metrics) {
      const line = lineOf(store, metric);
      const step = divergedAt(store, metric);
      if (step !== undefined)
        notes.push(`${nameOf(found)} diverged: ${metric} is NaN or infinite from step ${integer(step)}.`);
      else if (!line) notes.push(`${nameOf(found)} has no values of ${metric}.`);
      if (line) {
        const label =
          ids.length === 1 ? metric : chart.metrics.length === 1 ? nameOf(found) : `${nameOf(found)} · ${metric}`;
        const twice = lines.some((other) => other.label === label);
        lines.push({
          label: twice ? `${label} (${lines.length + 1})` : label,
          x: line.x,
          y: line.y,
          colour: lines.length + 1,
          points: line.x.length < FEW_POINTS,
        });
      }
    }
  }
  const title = chart.title ?? chart.metrics.join(", ");
  if (!lines.length) return html`<${Missing} title=${title} notes=${notes} lone />`;
  return html`<${ChartCard} title=${title} lines=${lines} log=${chart.logScale} file="report" height=${240} />
    <${Missing} notes=${notes} />`;
}

/**
 * Returns, for each id, the experiment and the store of its points, or null while they are loading. Charts of the same
 * experiment share one store. The component renders again when points change.
 *
 * @typedef {{found: Api.Experiment, store: SeriesStore, error?: undefined} | {error: Ui.Failure}} State
 * @param {string[]} ids
 * @returns {(State | null)[]}
 */
function useSeries(ids) {
  const [states, setStates] = useState(() => nothing(ids));
  const [, again] = useState(0);
  useEffect(() => {
    let cancelled = false;
    setStates(nothing(ids));
    const stops = ids.map((id, i) => {
      const entry = acquire(id);
      /** @param {State} state */
      const set = (state) => !cancelled && setStates((old) => old.map((current, at) => (at === i ? state : current)));
      entry.found.then(
        (found) => set({ found, store: entry.store }),
        (error) => set({ error }),
      );
      const stop = entry.store.watch(() => again((count) => count + 1));
      return () => {
        stop();
        release(id, entry);
      };
    });
    return () => {
      cancelled = true;
      stops.forEach((stop) => stop());
    };
  }, [ids.join()]);
  return states.length === ids.length ? states : nothing(ids);
}

/**
 * @param {string[]} ids
 * @returns {(State | null)[]}
 */
const nothing = (ids) => ids.map(() => null);

/**
 * @typedef {`api/experiments/${string}/ablation` | `api/analyses/${string}`} ResultPath
 * @typedef {Api.Reply<ResultPath>} Result
 * @type {Map<ResultPath, Promise<Result | null>>}
 */
const fresh = new Map();

/**
 * Returns the reply of the API for `path`, or null if the result does not exist. Calls for the same path within 3 s
 * share one request.
 *
 * @param {ResultPath} path
 */
function once(path) {
  const before = fresh.get(path);
  if (before) return before;
  /** @type {Promise<Result | null>} */
  const found = get(path).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  fresh.set(path, found);
  const drop = () => setTimeout(() => fresh.delete(path), 3000);
  found.then(drop, () => fresh.delete(path));
  return found;
}

/**
 * Loads a result and shows it. `children` is a function of the result. `missing` is shown if the result does not exist.
 *
 * @param {{path: ResultPath, title: string, missing: string, children: (result: Result["result"]) => Ui.Node}} props
 */
function Stored({ path, title, missing, children }) {
  const state = useLoad(async () => ({ reply: await once(path) }), [path]);
  if (state.error && !state.data) return html`<${Failed} error=${state.error} retry=${state.reload} />`;
  if (!state.data) return html`<${Loading} rows=${3} />`;
  return state.data.reply
    ? children(state.data.reply.result)
    : html`<${Missing} title=${title} notes=${[missing]} lone />`;
}

/** @param {{chart: Api.ChartOf<"ablation">}} props */
function AblationChart({ chart }) {
  const what = chart.quantity === "total" ? "total reward" : chart.quantity;
  const title =
    chart.title ?? (chart.paired ? `Differences in ${what}` : `${what[0].toUpperCase()}${what.slice(1)} by policy`);
  const path = `api/experiments/${encodeURIComponent(chart.experiment)}/ablation`;
  return html`<${Stored}
    path=${path}
    title=${title}
    missing=${`Experiment ${chart.experiment} does not exist, or has no ablation.`}
  >
    ${(/** @type {Api.Ablation} */ result) => {
      const rows = Object.entries((chart.paired ? result.paired : result.policies) ?? {})
        .map(([name, row]) => ({
          name: name.replaceAll("_", " "),
          .../** @type {Api.Interval} */ (pick(row, chart.quantity)),
          colour: chart.paired ? 1 : (COLOURS[name] ?? 8),
        }))
        .filter((row) => Number.isFinite(row.mean));
      if (!rows.length) {
        const note = `The ablation of experiment ${chart.experiment} has no values of ${what}.`;
        return html`<${Missing} title=${title} notes=${[note]} lone />`;
      }
      return html`<section class="card stack tight" aria-label=${title}>
        <h3>${title}</h3>
        <${Bars} rows=${rows} zero signed=${chart.paired} />
        <p class="note">Bars show means per token; whiskers show 95 % confidence intervals.</p>
      </section>`;
    }}
  <//>`;
}

/**
 * @typedef {object} AnalysisLines
 * @property {string} title
 * @property {string} unit
 * @property {[number, number]} [range]
 * @property {(result: Api.Analysis) => Ui.Line[]} linesOf
 * @property {string} missing text to show if there are no lines
 * @param {AnalysisLines & {chart: Api.ChartOf<"trajectory" | "sweep">}} props
 */
function AnalysisChart({ chart, title, linesOf, ...rest }) {
  return html`<${Stored}
    path=${`api/analyses/${encodeURIComponent(chart.analysis)}`}
    title=${title}
    missing=${`Analysis ${chart.analysis} does not exist.`}
  >
    ${(/** @type {Api.Analysis} */ result) =>
      html`<${Lines} result=${result} linesOf=${linesOf} title=${title} ...${rest} />`}
  <//>`;
}

/** @param {AnalysisLines & {result: Api.Analysis}} props */
function Lines({ result, linesOf, title, missing, ...rest }) {
  const lines = useMemo(() => linesOf(result), [result]);
  if (!lines.length) return html`<${Missing} title=${title} notes=${[missing]} lone />`;
  return html`<${ChartCard} title=${title} lines=${lines} file="report" height=${200} ...${rest} />`;
}

/** @param {{chart: Api.ChartOf<"trajectory">}} props */
function Trajectory({ chart }) {
  /** @type {AnalysisLines["linesOf"]} */
  const linesOf = (result) => {
    const samples = result.trajectories[chart.prompt - 1]?.samples ?? [];
    return samples.slice(0, MAX_LINES).map((sample, i) => ({
      label: samples.length > 1 ? `seed ${sample.seed}` : "modulation",
      x: sample.modulation.map((_, at) => at + 1),
      y: sample.modulation,
      colour: i + 1,
    }));
  };
  return html`<${AnalysisChart}
    chart=${chart}
    title=${chart.title ?? "Modulation by token"}
    unit="by token"
    range=${[0, 1]}
    linesOf=${linesOf}
    missing=${`This analysis has no trajectory ${chart.prompt}.`}
  />`;
}

/** @param {{chart: Api.ChartOf<"sweep">}} props */
function Sweep({ chart }) {
  /** @type {AnalysisLines["linesOf"]} */
  const linesOf = (result) =>
    (result.sweepAnalysis?.prompts ?? []).slice(0, MAX_LINES).flatMap(({ prompt, statistics }, i) => {
      const points = Object.entries(statistics ?? {})
        .map(([m, row]) => [Number(m), row[chart.measure]])
        .filter(([, y]) => Number.isFinite(y))
        .sort(([a], [b]) => a - b);
      return points.length
        ? [
            {
              label: prompt || "(new document)",
              x: points.map(([x]) => x),
              y: points.map(([, y]) => y),
              colour: i + 1,
              points: true,
            },
          ]
        : [];
    });
  return html`<${AnalysisChart}
    chart=${chart}
    title=${chart.title ?? `${MEASURES[chart.measure]} by modulation`}
    unit="by modulation"
    linesOf=${linesOf}
    missing="This analysis contains no sweep."
  />`;
}
