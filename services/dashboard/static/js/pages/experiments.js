// The page with all experiments. It has filters, shows live status and progress, and lets the user select runs to
// compare.
import { html, useEffect, useState } from "../lib/html.js";
import { get, query } from "../lib/api.js";
import { follow } from "../lib/sse.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, maySubmit } from "../lib/session.js";
import { go, href, route, setParams } from "../lib/router.js";
import { title } from "../lib/format.js";
import { PLOTTED } from "../charts/catalog.js";
import { Icon } from "../components/icons.js";
import { Empty, Loaded, Progress, Status, TYPES, Time } from "../components/parts.js";

const STATUSES = ["running", "pending", "paused", "completed", "failed", "cancelled", "stale", "starting"];
const PAGE = 200;
/**
 * @typedef {Record<"search" | "type" | "status" | "tag", string>} Filter
 * @typedef {Api.Reply<"api/experiments"> & {tags: string[]}} Page
 * @type {(keyof Filter)[]}
 */
const FILTERS = ["search", "type", "status", "tag"];

export function Experiments() {
  const { params } = useStore(route);
  const filter = /** @type {Filter} */ (Object.fromEntries(FILTERS.map((name) => [name, params.get(name) ?? ""])));
  const chosen = (params.get("compare") ?? "").split(",").filter(Boolean);
  const state = useLoad(async (signal) => {
    const [page, { tags }] = await Promise.all([
      get(`api/experiments${query({ ...filter, limit: PAGE })}`, signal),
      get("api/experiments/tags", signal),
    ]);
    return { ...page, tags };
  }, Object.values(filter));
  useLiveStatus(state);
  /**
   * @param {string} id
   * @param {boolean} on
   */
  const choose = (id, on) =>
    setParams({ compare: (on ? [...chosen, id] : chosen.filter((other) => other !== id)).join(",") });
  const filtered = FILTERS.some((name) => filter[name]);

  return html`
    <div class="page-head">
      <div class="grow"><h1>Experiments</h1></div>
      ${
        chosen.length > 0 &&
        html`<button
          class="button"
          disabled=${chosen.length < 2}
          onClick=${() => go("/compare", { ids: chosen.join(",") })}
        >
          <${Icon} name="compare" />Compare ${chosen.length}
        </button>`
      }
      <${NewJob} />
    </div>
    <${Filters} filter=${filter} tags=${state.data?.tags ?? []} />
    <div class="card flush">
      <${Loaded} state=${state} rows=${8}>
        ${(/** @type {Page} */ data) =>
          data.experiments.length
            ? html`<${Table}
                experiments=${data.experiments}
                chosen=${chosen}
                choose=${choose}
                chosenTag=${filter.tag}
              />`
            : filtered
              ? html`<${Empty} icon="search" title="Nothing matches">
                  <button class="button" onClick=${() => setParams({ search: "", type: "", status: "", tag: "" })}>
                    Clear the filters
                  </button>
                <//>`
              : html`<${Empty} title="No experiments yet">
                  <p>
                    An experiment contains the metrics, checkpoints and results of a job. Start by training a language
                    model.
                  </p>
                  <${NewJob} />
                <//>`}
      <//>
    </div>
    ${state.data?.nextCursor && html`<${More} state=${state} filter=${filter} />`}
  `;
}

function NewJob() {
  const canSubmit = maySubmit(useStore(session));
  return html`<a class=${`button ${canSubmit ? "primary" : ""}`} href=${href("/new")}
    ><${Icon} name="plus" />New job</a
  >`;
}

/** @param {{filter: Filter, tags: string[]}} props */
function Filters({ filter, tags }) {
  const [text, setText] = useState(filter.search);
  useEffect(() => setText(filter.search), [filter.search]);
  useEffect(() => {
    const timer = setTimeout(() => text !== filter.search && setParams({ search: text }, true), 250);
    return () => clearTimeout(timer);
  }, [text]);
  /**
   * @param {keyof Filter} name
   * @param {string} label
   * @param {[value: string, shown: string][]} options
   */
  const select = (name, label, options) =>
    html`<select
      aria-label=${label}
      value=${filter[name]}
      onChange=${(event) => setParams({ [name]: event.target.value })}
    >
      <option value="">${label}</option>
      ${options.map(
        ([value, shown]) => html`<option value=${value} selected=${value === filter[name]}>${shown}</option>`,
      )}
    </select>`;
  const known = filter.tag && !tags.includes(filter.tag) ? [filter.tag, ...tags] : tags;
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
    <input
      type="search"
      aria-label="Search by name or id"
      placeholder="Search by name or id"
      value=${text}
      onInput=${(event) => setText(event.target.value)}
    />
    ${select(
      "type",
      "All types",
      ["lm", "rl", "evaluation", "headroom", "ablation", "analysis"].map((type) => [type, TYPES[type]]),
    )}
    ${select(
      "status",
      "Any status",
      STATUSES.map((status) => [status, status]),
    )}
    ${select(
      "tag",
      "Any tag",
      known.map((tag) => [tag, tag]),
    )}
  </form>`;
}

/**
 * @param {{experiments: Api.ExperimentRow[], chosenTag: string, chosen: string[],
 * choose: (id: string, on: boolean) => void}} props
 */
function Table({ experiments, chosen, choose, chosenTag }) {
  return html`<div class="table-wrap">
    <table class="experiments">
      <thead>
        <tr>
          <th><span class="visually-hidden">Compare</span></th>
          <th>Experiment</th>
          <th>Status</th>
          <th class="wide">Type</th>
          <th class="wide">Progress</th>
          <th class="wide">Tags</th>
          <th class="wide">Created</th>
        </tr>
      </thead>
      <tbody>
        ${experiments.map(
          (experiment) =>
            html`<${Row}
              key=${experiment.id}
              experiment=${experiment}
              on=${chosen.includes(experiment.id)}
              choose=${choose}
              chosenTag=${chosenTag}
            />`,
        )}
      </tbody>
    </table>
  </div>`;
}

/**
 * @param {{experiment: Api.ExperimentRow, on: boolean, choose: (id: string, on: boolean) => void,
 *   chosenTag: string}} props
 */
function Row({ experiment, on, choose, chosenTag }) {
  return html`<tr>
    <td>
      ${
        PLOTTED.includes(experiment.type) &&
        html`<input
          type="checkbox"
          aria-label=${`Compare ${title(experiment)}`}
          checked=${on}
          onChange=${(event) => choose(experiment.id, event.target.checked)}
        />`
      }
    </td>
    <td class="name">
      <a href=${href(`/experiments/${encodeURIComponent(experiment.id)}`)}>${title(experiment)}</a>
      ${experiment.name && html`<span class="note id" title=${experiment.id}>${experiment.id}</span>`}
    </td>
    <td><${Status} status=${experiment.status} /></td>
    <td class="wide nowrap">${TYPES[experiment.type] ?? experiment.type}</td>
    <td class="wide">
      <${Progress} progress=${experiment.progress} type=${experiment.type} ended=${experiment.status} quiet />
    </td>
    <td class="wide">
      <span class="row">
        ${experiment.tags.map(
          (tag) =>
            html`<button
              class="tag"
              key=${tag}
              aria-pressed=${tag === chosenTag}
              aria-label=${`Show tag ${tag}`}
              onClick=${() => setParams({ tag: tag === chosenTag ? "" : tag })}
            >
              ${tag}
            </button>`,
        )}
      </span>
    </td>
    <td class="wide note nowrap"><${Time} at=${experiment.createdAt} /></td>
  </tr>`;
}

/** @param {{state: Ui.Load<Page>, filter: Filter}} props */
function More({ state, filter }) {
  const [busy, setBusy] = useState(false);
  const load = async () => {
    setBusy(true);
    try {
      const next = await get(`api/experiments${query({ ...filter, limit: PAGE, cursor: state.data?.nextCursor })}`);
      state.setData((old) => ({
        ...old,
        experiments: [...old.experiments, ...next.experiments],
        nextCursor: next.nextCursor,
      }));
    } finally {
      setBusy(false);
    }
  };
  return html`<p class="more"><button class="button" disabled=${busy} onClick=${load}>Show more</button></p>`;
}

/**
 * Updates the statuses from the stream of all jobs, and reloads the list when a new experiment appears.
 *
 * @param {Ui.Load<Page>} state
 */
function useLiveStatus(state) {
  const ready = state.data !== null;
  useEffect(() => {
    if (!ready) return undefined;
    return follow("api/jobs/stream", {
      onEvent(name, job) {
        if (name === "reset") state.reload();
        if (name !== "job-update") return;
        let known = false;
        state.setData((old) => ({
          ...old,
          experiments: old.experiments.map((experiment) => {
            if (experiment.id !== job.experimentId) return experiment;
            known = true;
            return {
              ...experiment,
              status: job.status,
              progress: job.progress,
              jobId: job.id,
              updatedAt: job.updatedAt,
            };
          }),
        }));
        if (!known && job.status === "pending" && job.type !== "dataset") state.reload();
      },
    });
  }, [ready]);
}
