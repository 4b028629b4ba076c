// The page that compares several runs. It has one chart per quantity with one colour per run, and a table of the
// settings.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { get, query } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { createStore, useStore } from "../lib/store.js";
import { hasEnded } from "../lib/job-signals.js";
import { href, route, setParams, useTitle } from "../lib/router.js";
import { title } from "../lib/format.js";
import { flatBoth } from "../lib/config.js";
import { PLOTTED, chartsFor } from "../charts/catalog.js";
import { ChartCard } from "../charts/chart-card.js";
import { useZoomPoints } from "../charts/zoom-points.js";
import { KINDS, SeriesStore, smooth } from "../charts/series.js";
import { ConfigTable } from "../components/config-table.js";
import { Empty, Loaded, Status, TYPES, Tabs } from "../components/parts.js";
import { Icon } from "../components/icons.js";
import { ChartTools } from "./experiment-charts.js";

const MAX_RUNS = 8;
const MAX_POINTS = 1000;
const REFRESH_MS = 5000;

export function Compare() {
  const { params } = useStore(route);
  const ids = [...new Set((params.get("ids") ?? "").split(",").filter(Boolean))].slice(0, MAX_RUNS);
  const state = useLoad(
    async (signal) =>
      (await Promise.all(ids.map((id) => load(id, signal).catch(nullIfDeleted)))).filter((run) => run !== null),
    [ids.join()],
  );
  useRefresh(state);
  const tab = params.get("tab") === "config" ? "config" : "charts";
  useTitle((state.data ?? []).map((run) => run.label).join(", "), "Compare");
  return html`
    <div class="page-head">
      <div class="grow">
        <p class="sub"><a href=${href("/")}>Experiments</a> / Compare</p>
        <h1>Compare runs</h1>
      </div>
      <${AddRun} ids=${ids} />
    </div>
    ${
      ids.length === 0
        ? html`<${Empty} icon="compare" title="Choose runs to compare"
            ><p>Add them above, or select them in the list of experiments.</p><//
          >`
        : html`<${Loaded} state=${state} rows=${8}>
            ${(/** @type {Run[]} */ runs) => html`
              ${
                !state.loading &&
                runs.length < ids.length &&
                html`<p class="message warn">
                  ${ids.length - runs.length} of the runs ${ids.length - runs.length > 1 ? "were" : "was"} deleted.
                </p>`
              }
              <${Runs} runs=${runs} ids=${ids} />
              <${Tabs}
                tabs=${[
                  ["charts", "Charts"],
                  ["config", "Configuration"],
                ]}
                active=${tab}
                label="Parts of the comparison"
                onChange=${(/** @type {string} */ name) => setParams({ tab: name === "charts" ? "" : name })}
              />
              <div role="tabpanel" id="tab-panel" aria-labelledby=${`tab-${tab}`}>
                ${
                  tab === "config"
                    ? html`<${ConfigTable}
                        key=${runs.length}
                        columns=${runs.map((run) => ({ title: run.label, flat: flatBoth(run.config) }))}
                      />`
                    : html`<${SharedCharts} runs=${runs} />`
                }
              </div>
            `}
          <//>`
    }
  `;
}

/**
 * Returns null if the error means that a run was deleted, so that the other runs are still shown. Throws other errors.
 *
 * @param {Ui.Failure} error
 * @returns {null}
 */
function nullIfDeleted(error) {
  if (error.status === 404) return null;
  throw error;
}

/**
 * @typedef {Ui.Run & Api.Experiment & {label: string, config: Api.Config}} Run
 * @param {string} id
 * @param {AbortSignal} signal
 * @returns {Promise<Run>}
 */
async function load(id, signal) {
  /** @type {Api.ExperimentPath} */
  const path = `api/experiments/${encodeURIComponent(id)}`;
  const run = { path, store: new SeriesStore() };
  const [found, config] = await Promise.all([loadPoints(run, signal), get(`${path}/config`, signal)]);
  return { ...run, ...found, config };
}

/**
 * Loads the points of a run into its store, and returns the experiment of the run.
 *
 * @param {Ui.Run} run
 * @param {AbortSignal} signal
 * @returns {Promise<Api.Experiment & {label: string}>}
 */
async function loadPoints({ path, store }, signal) {
  const found = await get(path, signal);
  const names = { metrics: found.metricNames, "rl-metrics": found.rlMetricNames };
  await Promise.all(
    KINDS.filter((kind) => names[kind].length).map(async (kind) =>
      store.load(kind, await get(`${path}/${kind}${query({ mode: "historical", maxPoints: MAX_POINTS })}`, signal)),
    ),
  );
  return { ...found, label: title(found) };
}

/**
 * Every few seconds, reloads the runs that have not ended. Streams are not used, because they would send more
 * points than the charts show.
 *
 * @param {Ui.Load<Run[]>} state
 */
function useRefresh(state) {
  const live = (state.data ?? []).filter((run) => !hasEnded(run.status));
  const which = live.map((run) => run.id).join();
  useEffect(() => {
    if (!which) return undefined;
    const aborter = new AbortController();
    const timer = setInterval(async () => {
      if (document.hidden) return;
      const found = await Promise.all(live.map((run) => loadPoints(run, aborter.signal).catch(() => null)));
      if (aborter.signal.aborted) return;
      state.setData((runs) => runs.map((run) => ({ ...run, ...found.find((refreshed) => refreshed?.id === run.id) })));
    }, REFRESH_MS);
    return () => {
      clearInterval(timer);
      aborter.abort();
    };
  }, [which]);
}

/** @param {{runs: Run[], ids: string[]}} props */
function Runs({ runs, ids }) {
  /** @param {string} id */
  const drop = (id) => setParams({ ids: ids.filter((other) => other !== id).join(",") });
  return html`<ul class="runs">
    ${runs.map(
      (run, i) =>
        html`<li class="card" key=${run.id}>
          <i style=${{ "--swatch": `var(--chart-${i + 1})` }}></i>
          <a href=${href(`/experiments/${encodeURIComponent(run.id)}`)}>${run.label}</a>
          <${Status} status=${run.status} />
          <button class="button quiet small" aria-label=${`Remove ${run.label}`} onClick=${() => drop(run.id)}>
            <${Icon} name="cross" />
          </button>
        </li>`,
    )}
  </ul>`;
}

/** @param {{ids: string[]}} props */
function AddRun({ ids }) {
  const list = useLoad((signal) => get(`api/experiments${query({ type: PLOTTED, limit: 200 })}`, signal), []);
  const others = (list.data?.experiments ?? []).filter((experiment) => !ids.includes(experiment.id));
  /** @type {Ui.Handler} */
  const add = (event) => {
    const id = event.target.value;
    event.target.value = "";
    if (id) setParams({ ids: [...ids, id].join(",") });
  };
  return html`<select class="short" aria-label="Add a run" disabled=${ids.length >= MAX_RUNS} onChange=${add}>
    <option value="">${ids.length >= MAX_RUNS ? `${MAX_RUNS} at most` : "Add a run…"}</option>
    ${others.map(
      (experiment) =>
        html`<option value=${experiment.id}>
          ${title(experiment)} (${TYPES[experiment.type]}, ${experiment.status})
        </option>`,
    )}
  </select>`;
}

/**
 * Returns a distinct label for each run, even if two runs have the same name.
 *
 * @param {Run[]} runs
 */
const labelled = (runs) =>
  runs.map((run, i) =>
    runs.some((other, j) => j < i && other.label === run.label) ? `${run.label} (${i + 1})` : run.label,
  );

/** @param {{runs: Run[]}} props */
function SharedCharts({ runs }) {
  const [weight, setWeight] = useState(0.8);
  const zoom = useMemo(() => createStore(/** @type {Ui.Range | null} */ (null)), []);
  const [, setVersion] = useState(0);
  useEffect(() => zoom.set(null), [runs.length]);
  useEffect(() => {
    const stops = runs.map((run) => run.store.watch(() => setVersion((count) => count + 1)));
    return () => stops.forEach((stop) => stop());
  }, [runs]);
  useZoomPoints(runs, zoom, MAX_POINTS);
  const charts = useMemo(
    () =>
      chartsFor(
        (kind, name) => runs.some((run) => run.store.get(kind, name)?.x.length),
        (kind) => [...new Set(runs.flatMap((run) => run.store.names(kind)))],
      ),
    [runs],
  );
  const labels = labelled(runs);
  // A chart of `catalog.js` that shows several quantities is split into one chart per quantity.
  const single = charts.flatMap((chart) => {
    const lines = chart.lines.filter((line) => runs.some((run) => run.store.get(chart.kind, line.name)?.x.length));
    return lines.map((line) => ({
      ...chart,
      id: `${chart.id}-${line.name}`,
      title: lines.length > 1 ? `${chart.title}: ${line.label}` : chart.title,
      line,
    }));
  });
  if (!single.length) return html`<${Empty} title="No points to compare"><p>None of these runs has metrics.</p><//>`;
  return html`
    <${ChartTools} weight=${weight} setWeight=${setWeight} zoom=${zoom} />
    <div class="charts">
      ${single.map(({ line, ...chart }) => {
        const lines = runs.flatMap((run, i) => {
          const found = run.store.get(chart.kind, line.name);
          if (!found?.x.length) return [];
          const y = line.smooth ? smooth(found.y, weight) : found.y;
          return [{ label: labels[i], x: found.x, y, colour: i + 1, points: line.points }];
        });
        const diverged = runs.flatMap((run, i) => {
          const step = run.store.diverged(chart.kind, line.name);
          return step === undefined ? [] : [{ label: labels[i], step }];
        });
        return html`<${ChartCard}
          key=${chart.id}
          ...${chart}
          lines=${lines}
          diverged=${diverged}
          zoom=${zoom}
          sync="compare"
          file="compare"
        />`;
      })}
    </div>
  `;
}
