// The page of one experiment: a header with status and controls, and tabs for charts, log, checkpoints, results and
// more.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { get, isTemporary, query } from "../lib/api.js";
import { follow } from "../lib/sse.js";
import { useLoad } from "../lib/load.js";
import { createStore, useStore } from "../lib/store.js";
import { hasEnded } from "../lib/job-signals.js";
import { route, setParams, href, useTitle } from "../lib/router.js";
import { bytes, percent, shortId, title } from "../lib/format.js";
import { PLOTTED } from "../charts/catalog.js";
import { KINDS, SeriesStore } from "../charts/series.js";
import { Loaded, Progress, Status, TYPES, Tabs, Time, beganOrEndedWaiting } from "../components/parts.js";
import { Icon } from "../components/icons.js";
import { ExperimentActions } from "../components/experiment-actions.js";
import { JobControls } from "../components/job-controls.js";
import { NewReport } from "../components/new-report.js";
import { LogView } from "../components/log-view.js";
import { vocabularyLabel } from "../components/vocabulary.js";
import { Charts } from "./experiment-charts.js";
import { Checkpoints, Config, History, Results } from "./experiment-tabs.js";

const LONG_TITLE = 60;
const MAX_POINTS = 2000;

/** @param {{id: string}} props */
export function Experiment({ id }) {
  /** @type {Api.ExperimentPath} */
  const path = `api/experiments/${encodeURIComponent(id)}`;
  const state = useLoad((signal) => get(path, signal), [id]);
  const early = useMemo(() => readPoints(path), [id]); // requests the points without waiting for the experiment
  return html`<${Loaded} state=${state} rows=${6}
    >${(found) => html`<${View} found=${found} path=${path} state=${state} early=${early} />`}<//
  >`;
}

/**
 * Loads the points of all kinds of metrics (`KINDS`). The caller handles a failure.
 *
 * @param {Api.ExperimentPath} path
 */
function readPoints(path) {
  const found = Promise.all(
    KINDS.map((kind) => get(`${path}/${kind}${query({ mode: "historical", maxPoints: MAX_POINTS })}`)),
  );
  found.catch(() => {});
  return found;
}

/**
 * @typedef {ReturnType<typeof readPoints>} Points
 * @param {{found: Api.Experiment, path: Api.ExperimentPath, state: Ui.Load<Api.Experiment>, early: Points}} props
 */
function View({ found, path, state, early }) {
  const { params } = useStore(route);
  const live = useLive(found, path, state, early);
  const ended = hasEnded(live.status);
  const trains = PLOTTED.includes(found.type);
  const dataset = found.type === "dataset";
  /** @type {[name: string, text: string][]} */
  const tabs = [];
  if (trains) tabs.push(["charts", "Charts"]);
  if (found.results.length || (ended && !dataset)) tabs.push(["results", "Results"]);
  if (trains) tabs.push(["checkpoints", "Checkpoints"]);
  if (!dataset) tabs.push(["config", "Configuration"]);
  if (found.jobId) tabs.push(["logs", "Log"], ["history", "History"]);
  const [tab, heading] =
    [params.get("tab"), "charts", "results", "history", "config"]
      .map((candidate) => tabs.find(([name]) => name === candidate))
      .find(Boolean) ?? tabs[0];
  const { step, totalSteps } = live.progress ?? {};
  useTitle(!ended && step && totalSteps ? percent(Math.min(1, step / totalSteps)) : "", title(found), heading);
  return html`
    <div class="page-head many">
      <div class="grow">
        <p class="sub">
          ${
            dataset
              ? html`<a href=${href("/datasets")}>Datasets</a> / Job`
              : html`<a href=${href("/")}>Experiments</a> / ${TYPES[found.type] ?? found.type}`
          }
        </p>
        <h1 class=${title(found).length > LONG_TITLE ? "long" : ""}>${title(found)}</h1>
        ${found.name && html`<p class="sub mono">${found.id}</p>`}
      </div>
      ${
        trains &&
        html`<a class="button" href=${href("/compare", { ids: found.id })}><${Icon} name="compare" />Compare</a>`
      }
      ${!dataset && html`<${NewReport} label="New report" experiments=${[found.id]} />`}
      <${ExperimentActions} found=${found} path=${path} ended=${ended} onChanged=${state.setData} />
    </div>
    <div class="card run-card">
      <div class="row">
        <${Status} status=${live.status} />
        ${found.tags.map((tag) => html`<a class="tag" href=${href("/", { tag })}>${tag}</a>`)}
        <span class="note">created <${Time} at=${found.createdAt} /></span>
        ${found.sizeBytes > 0 && html`<span class="note">${bytes(found.sizeBytes)} on disk</span>`}
        ${found.vocabulary && html`<span class="note">vocabulary ${vocabularyLabel(found.vocabulary)}</span>`}
        ${
          found.sourceExperimentId &&
          html`<span class="note"
            >started from${" "}
            <a href=${href(`/experiments/${found.sourceExperimentId}`)}>${shortId(found.sourceExperimentId)}</a></span
          >`
        }
      </div>
      ${found.notes && html`<p class="notes">${found.notes}</p>`}
      <${Progress} progress=${live.progress} type=${found.type} ended=${live.status} />
      ${found.jobId && html`<${JobControls} jobId=${found.jobId} changed=${live.updates} />`}
    </div>
    <${Tabs}
      tabs=${tabs}
      active=${tab}
      label="Parts of the experiment"
      onChange=${(/** @type {string} */ name) => setParams({ tab: name })}
    />
    <div role="tabpanel" id="tab-panel" aria-labelledby=${`tab-${tab}`}>
      ${
        tab === "charts" &&
        html`<${Charts}
          store=${live.store}
          path=${path}
          file=${title(found)}
          loaded=${live.loaded}
          error=${live.error}
          ended=${ended}
          deletedAt=${found.archiveDeletedAt}
        />`
      }
      ${tab === "results" && html`<${Results} found=${found} path=${path} />`}
      ${tab === "checkpoints" && html`<${Checkpoints} path=${path} changed=${live.checkpoints} />`}
      ${tab === "config" && html`<${Config} found=${found} path=${path} />`}
      ${
        tab === "logs" &&
        html`<${LogView} key=${found.jobId} jobId=${found.jobId} newLines=${live.newLines} live=${!ended} />`
      }
      ${tab === "history" && html`<${History} jobId=${found.jobId} changed=${live.updates} />`}
    </div>
  `;
}

/**
 * Returns the status and the progress of the experiment, and adds new points to the store. The stream of the experiment
 * keeps all of this up to date.
 *
 * @typedef {object} Live
 * @property {string} status
 * @property {Api.LiveProgress | null} progress
 * @property {boolean} loaded
 * @property {Ui.Failure | null} error
 * @property {number} updates
 * @property {number} checkpoints
 * @param {Api.Experiment} found
 * @param {Api.ExperimentPath} path
 * @param {Ui.Load<Api.Experiment>} state
 * @param {Points} early
 */
function useLive(found, path, state, early) {
  const store = useMemo(() => new SeriesStore(), [found.id]);
  const newLines = useMemo(() => createStore(0), [found.id]);
  const [now, setNow] = useState(
    /** @type {Live} */ ({
      status: found.status,
      progress: found.progress,
      loaded: false,
      error: null,
      updates: 0,
      checkpoints: 0,
    }),
  );
  /** @param {Partial<Live>} changes */
  const update = (changes) => setNow((old) => ({ ...old, ...changes }));
  useEffect(() => update({ status: found.status, progress: found.progress }), [found]);
  useEffect(() => {
    let stop = () => {};
    let cancelled = false;
    /** @type {string | null | undefined} */
    let phase = null;
    /** @type {{[N in keyof Api.StreamEvents]: (data: Api.StreamEvents[N]) => unknown}} */
    const listeners = {
      metrics: (data) => store.append("metrics", data.points),
      "rl-metrics": (data) => store.append("rl-metrics", data.points),
      rewind: (data) => store.rewind(data),
      status: (data) => {
        // The end of a phase "sampling" means that there are new sample texts.
        if (phase === "sampling" && data.phase !== phase) state.reload();
        phase = data.phase;
        const progress = {
          step: data.step ?? null,
          totalSteps: data.totalSteps ?? null,
          etaSeconds: data.etaSeconds ?? null,
          phase: data.phase ?? null,
          disk: data.disk ?? null,
        };
        setNow((old) => ({
          ...old,
          progress,
          updates: old.updates + (beganOrEndedWaiting(old.progress, progress) ? 1 : 0),
        }));
      },
      "job-update": (job) => {
        setNow((old) => ({ ...old, status: job.status, progress: job.progress, updates: old.updates + 1 }));
        newLines.set((count) => count + 1);
        state.reload();
      },
      checkpoint: () => setNow((old) => ({ ...old, checkpoints: old.checkpoints + 1 })),
      "log-lines": () => newLines.set((count) => count + 1),
      reset: () => loadWithRetries().catch(() => {}), // `load` has shown the error
    };
    /** @type {Points | null} */
    let first = early;
    async function load() {
      try {
        const replies = await (first ?? readPoints(path));
        first = null;
        if (cancelled) return null;
        replies.forEach((reply, i) => store.load(KINDS[i], reply));
        update({ loaded: true, error: null });
        return replies[0].streamCursor;
      } catch (error) {
        first = null;
        if (!cancelled) update({ error });
        throw error;
      }
    }
    async function loadWithRetries() {
      for (;;) {
        try {
          return await load();
        } catch (error) {
          if (cancelled || !isTemporary(error)) throw error;
          await new Promise((resolve) => setTimeout(resolve, 2000));
        }
      }
    }
    async function start() {
      const since = await loadWithRetries();
      if (!cancelled)
        stop = follow(`${path}/brief/stream`, {
          since,
          onEvent: (name, data) => /** @type {(data: unknown) => unknown} */ (listeners[name])?.(data),
        });
    }
    start().catch(() => {});
    return () => {
      cancelled = true;
      stop();
    };
  }, [found.id]);
  return { ...now, store, newLines };
}
