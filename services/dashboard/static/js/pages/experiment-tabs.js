// Some tabs of an experiment: results, checkpoints, configuration and history. Charts and log are in other modules.
import { html } from "../lib/html.js";
import { get, nullIfMissing, query } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { route, setParams } from "../lib/router.js";
import { duration, integer, number, title } from "../lib/format.js";
import { flatBoth, flatten } from "../lib/config.js";
import { Ablation } from "../components/ablation.js";
import { Headroom } from "../components/headroom.js";
import { CheckpointTable } from "../components/checkpoints.js";
import { SampleHistory } from "../components/sample-history.js";
import { SavedAnalyses } from "../components/saved-analyses.js";
import { useStore } from "../lib/store.js";
import { session, maySubmit } from "../lib/session.js";
import { ConfigTable } from "../components/config-table.js";
import { VocabularyCard } from "../components/vocabulary.js";
import { Empty, Loaded, Time } from "../components/parts.js";

const RESULTS = /** @type {const} */ (["evaluation", "headroom", "ablation"]);

/** @param {{found: Api.Experiment, path: Api.ExperimentPath}} props */
export function Results({ found, path }) {
  const { id, type, results } = found;
  const canSubmit = maySubmit(useStore(session));
  if (type === "analysis") return html`<${SavedAnalyses} experiment=${id} changed=${0} canSubmit=${canSubmit} />`;
  const history = results.includes("sample-history");
  const hasFiles = !history || RESULTS.some((name) => results.includes(name));
  return html`<div class="stack">
    ${hasFiles && html`<${ResultFiles} path=${path} results=${results} />`}
    ${history && html`<${SampleHistory} path=${path} changed=${found} />`}
  </div>`;
}

/** @param {{path: Api.ExperimentPath, results: string[]}} props */
function ResultFiles({ path, results }) {
  const state = useLoad(
    async (signal) => {
      const [evaluation, headroom, ablation] = await Promise.all(
        RESULTS.map((name) =>
          results.includes(name) ? get(`${path}/${name}`, signal).catch(nullIfMissing) : Promise.resolve(null),
        ),
      );
      return { evaluation: evaluation?.result, headroom: headroom?.result, ablation: ablation?.result };
    },
    [path, results.join()],
  );
  return html`<${Loaded} state=${state}>
    ${(/** @type {Ui.Data<typeof state>} */ { evaluation, headroom, ablation }) =>
      !evaluation && !headroom && !ablation
        ? html`<${Empty} title="No results yet"
            ><p>Results are written when the training ends: the evaluation and, for a controller, the ablation.</p><//
          >`
        : html`<div class="stack">
            ${headroom && html`<${Headroom} result=${headroom} />`}
            ${ablation && html`<${Ablation} result=${ablation} />`}
            ${evaluation && html`<${Evaluation} result=${evaluation} />`}
          </div>`}
  <//>`;
}

/** @param {{result: Api.Evaluation}} props */
function Evaluation({ result }) {
  const facts = Object.entries(result).flatMap(([name, value]) =>
    typeof value === "number" ? [/** @type {const} */ ([name, value])] : [],
  );
  return html`<section class="stack" aria-label="Evaluation">
    <div class="card">
      <header><h2>Evaluation</h2></header>
      <dl class="facts">
        ${facts.map(([name, value]) =>
          name.endsWith("_seconds")
            ? html`<dt>${name.slice(0, -8).replaceAll("_", " ")} time</dt>
                <dd>${duration(value)}</dd>`
            : html`<dt>${name.replaceAll("_", " ")}</dt>
                <dd>${Number.isInteger(value) ? integer(value) : number(value, 5)}</dd>`,
        )}
      </dl>
    </div>
    <div class="columns">
      ${(result.samples ?? []).map(
        ({ prompt, generated }) =>
          html`<figure class="card sample">
            <p><b>${prompt}</b>${generated.startsWith(prompt) ? generated.slice(prompt.length) : generated}</p>
          </figure>`,
      )}
    </div>
  </section>`;
}

/** @param {{path: Api.ExperimentPath, changed: number}} props */
export function Checkpoints({ path, changed }) {
  const state = useLoad((signal) => get(`${path}/checkpoints`, signal), [path, changed]);
  return html`<${Loaded} state=${state}>
    ${(/** @type {Ui.Data<typeof state>} */ { checkpoints }) =>
      checkpoints.length
        ? html`<div class="card flush">
            <${CheckpointTable} checkpoints=${checkpoints} onDeleted=${state.reload} />
          </div>`
        : html`<${Empty} icon="checkpoints" title="No checkpoints yet"
            ><p>The training writes checkpoints at intervals, and the final model at its end.</p><//
          >`}
  <//>`;
}

/**
 * Shows the vocabulary, and the configuration beside the defaults or beside that of another experiment.
 *
 * @param {{found: Api.Experiment, path: Api.ExperimentPath}} props
 */
export function Config({ found, path }) {
  const other = useStore(route).params.get("with") ?? "defaults";
  const list = useLoad((signal) => get(`api/experiments${query({ limit: 200 })}`, signal), []);
  const state = useLoad(
    async (signal) => {
      const mine = await get(`${path}/config`, signal);
      const columns = [{ title: title(found), flat: flatBoth(mine) }];
      if (other === "defaults") columns.push({ title: "Defaults", flat: await defaults(mine, signal) });
      else if (other !== "none") {
        /** @type {Api.ExperimentPath} */
        const at = `api/experiments/${encodeURIComponent(other)}`;
        const [experiment, otherConfig] = await Promise.all([get(at, signal), get(`${at}/config`, signal)]);
        columns.push({ title: title(experiment), flat: flatBoth(otherConfig) });
      }
      return columns;
    },
    [path, other],
  );
  const others = (list.data?.experiments ?? []).filter((experiment) => experiment.id !== found.id);
  return html`<div class="stack">
    ${found.vocabulary && html`<${VocabularyCard} path=${path} vocabulary=${found.vocabulary} />`}
    <label class="row note"
      >Compare with
      <select class="short" value=${other} onChange=${(event) => setParams({ with: event.target.value })}>
        <option value="none" selected=${other === "none"}>nothing</option>
        <option value="defaults" selected=${other === "defaults"}>the defaults</option>
        ${others.map(
          (experiment) =>
            html`<option value=${experiment.id} selected=${experiment.id === other}>${title(experiment)}</option>`,
        )}
      </select>
    </label>
    <${Loaded} state=${state}
      >${(/** @type {Ui.Data<typeof state>} */ columns) =>
        html`<${ConfigTable} key=${columns.length} columns=${columns} />`}<//
    >
  </div>`;
}

/**
 * @param {Api.Config} mine
 * @param {AbortSignal} signal
 */
async function defaults(mine, signal) {
  /**
   * @param {string} name
   * @param {string} prefix
   */
  const read = async (name, prefix) =>
    flatten((await get(`api/configs/${name}`, signal).catch(nullIfMissing))?.config, prefix);
  return new Map([
    ...(mine.config ? await read("base_config.yaml", "") : []),
    ...(mine.rlConfig ? await read("rl_config.yaml", "rl") : []),
  ]);
}

/** @param {{jobId: string, changed: number}} props */
export function History({ jobId, changed }) {
  const state = useLoad((signal) => get(`api/jobs/${jobId}/events${query({ limit: 1000 })}`, signal), [jobId, changed]);
  return html`<${Loaded} state=${state}>
    ${(/** @type {Ui.Data<typeof state>} */ { events }) =>
      html`<div class="card flush table-wrap">
        <table>
          <thead>
            <tr>
              <th>When</th>
              <th>Event</th>
              <th>Status</th>
              <th class="num">Attempt</th>
              <th>By</th>
              <th class="wide">Details</th>
            </tr>
          </thead>
          <tbody>
            ${[...events].reverse().map(
              (event) =>
                html`<tr key=${event.id}>
                  <td class="note nowrap"><${Time} at=${event.at} /></td>
                  <td>${event.event}</td>
                  <td class="nowrap">${event.toStatus ? `${event.fromStatus ?? ""} → ${event.toStatus}` : ""}</td>
                  <td class="num">${integer(event.attempt)}</td>
                  <td>${event.actor}</td>
                  <td class="wide mono details">
                    ${Object.entries(event.details ?? {})
                      .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
                      .join("  ")}
                  </td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>`}
  <//>`;
}
