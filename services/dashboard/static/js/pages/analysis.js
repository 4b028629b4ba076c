// The page that analyses the modulation in generated texts, for one prompt, for several prompts, or at several fixed
// modulations. A result can be saved with the experiment of the model.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { findings, get, post } from "../lib/api.js";
import { postForEvents } from "../lib/generate.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, maySubmit, signInOpen } from "../lib/session.js";
import { go, href, route, useTitle } from "../lib/router.js";
import { count } from "../lib/format.js";
import { keep, recall } from "../lib/tab-storage.js";
import { choices, preferred } from "../lib/references.js";
import { SavedAnalyses } from "../components/saved-analyses.js";
import { AnalysisView } from "../components/analysis-view.js";
import { Choice } from "../components/choice.js";
import { Empty, Field, Loaded, Problems, Time } from "../components/parts.js";
import { Icon } from "../components/icons.js";
import { toast } from "../components/toasts.js";

const KINDS = [
  { value: "", text: "Modulation for each prompt" },
  { value: "sweep", text: "Texts at modulation 0, 0.5 and 1" },
];
const MODES = [
  { value: "learned", text: "Learned: a controller" },
  { value: "random", text: "Random" },
  { value: "fixed", text: "Fixed" },
];
const STORAGE_KEY = "tidal.analysis"; // settings are stored under this key, so that they survive a reload of the tab
const PROMPTS = "Once upon a time\nThe little cat\nMom wanted to";

export function AnalysisPage() {
  const state = useLoad((signal) => get("api/checkpoints?limit=200", signal), []);
  const { params } = useStore(route);
  const saved = params.get("saved");
  return html`
    <div class="page-head">
      <div class="grow"><h1>Analysis</h1></div>
    </div>
    ${
      saved
        ? html`<${Saved} id=${saved} />`
        : html`<${Loaded} state=${state} rows=${6}
            >${(/** @type {Ui.Data<typeof state>} */ { experiments }) => html`<${Analyser} groups=${experiments} />`}<//
          >`
    }
  `;
}

/** @param {{id: string}} props */
function Saved({ id }) {
  const state = useLoad((signal) => get(`api/analyses/${encodeURIComponent(id)}`, signal), [id]);
  useTitle(state.data?.name ?? state.data?.kind, "Analysis");
  return html`<${Loaded} state=${state} rows=${6}>
    ${(/** @type {Ui.Data<typeof state>} */ found) =>
      html`<div class="stack">
        <p class="row">
          <a class="button" href=${href("/analysis")}>New analysis</a><strong>${found.name ?? found.kind}</strong
          ><span class="note">saved <${Time} at=${found.createdAt} /></span>
        </p>
        <${AnalysisView} result=${found.result} />
      </div>`}
  <//>`;
}

/**
 * @typedef {object} Form
 * @property {string} kind
 * @property {string} checkpoint
 * @property {string} rlCheckpoint
 * @property {"learned" | "random" | "fixed"} gatingMode
 * @property {string} prompts
 * @property {string} samples
 * @property {string} maxTokens
 * @property {string} seed
 * @property {string} modulation
 * @property {boolean} bootstrap
 * @property {boolean} extremes
 *
 * @typedef {Api.Body<"api/analyze-trajectories", "post">} Request
 *
 * @typedef {object} Run
 * @property {boolean} busy
 * @property {Api.AnalysisProgress | null} progress
 * @property {Api.Reply<"api/analyze-trajectories", "post"> | null} result
 * @property {Ui.Failure | null} error
 */

/**
 * @param {Form} form
 * @returns {Request}
 */
function bodyOf(form) {
  const prompts = form.prompts
    .split("\n")
    .map((line) => line.trim())
    .filter((line, i, all) => line || all.length === 1);
  /** @type {Request} */
  const body = {
    checkpoint: form.checkpoint,
    prompts,
    maxTokens: Number(form.maxTokens),
    seed: Number(form.seed) || 0,
  };
  if (form.kind === "sweep") return { ...body, kind: "sweep", gatingMode: "fixed" };
  Object.assign(body, {
    samplesPerPrompt: Number(form.samples),
    gatingMode: form.gatingMode,
    includeExtremeValues: form.extremes,
  });
  if (prompts.length > 1) body.bootstrap = form.bootstrap;
  if (form.gatingMode === "learned") body.rlCheckpoint = form.rlCheckpoint;
  if (form.gatingMode === "fixed") body.modulation = Number(form.modulation);
  return body;
}

/** @param {string} name */
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
/**
 * Names of the fields in a request for an analysis, and their names in a job (`config.…`). An error of the API contains
 * the name in a job if the analysis was submitted as a job, otherwise the name in a request.
 */
const FIELDS = [
  "kind",
  "checkpoint",
  "rlCheckpoint",
  "gatingMode",
  "modulation",
  "prompts",
  "samplesPerPrompt",
  "maxTokens",
  "seed",
].flatMap((name) => [name, `config.${snake(name)}`]);

/**
 * Returns the request that submits the same analysis as a job.
 *
 * @param {Request} body
 * @returns {Api.JobRequest}
 */
function jobOf({ checkpoint, rlCheckpoint, ...rest }) {
  const config = Object.fromEntries(Object.entries(rest).map(([name, value]) => [snake(name), value]));
  return { type: "analysis", checkpoint, config, ...(rlCheckpoint ? { rlCheckpoint } : {}) };
}

/** @param {{groups: Api.CheckpointGroup[]}} props */
function Analyser({ groups }) {
  const bases = choices(groups, "usableAsBase");
  const policies = choices(groups, "usableAsPolicy");
  const canSubmit = maySubmit(useStore(session));
  const [before] = useState(() => /** @type {Form | null} */ (recall(STORAGE_KEY)));
  const [form, setForm] = useState(
    /** @type {Form} */ (
      before && bases.some((option) => option.value === before.checkpoint)
        ? before
        : {
            kind: "",
            checkpoint: preferred(bases),
            rlCheckpoint: preferred(policies),
            gatingMode: policies.length ? "learned" : "random",
            prompts: PROMPTS,
            samples: "2",
            maxTokens: "40",
            seed: "0",
            modulation: "0.5",
            bootstrap: true,
            extremes: false,
          }
    ),
  );
  useEffect(() => keep(STORAGE_KEY, form), [form]);
  const [run, setRun] = useState(/** @type {Run} */ ({ busy: false, progress: null, result: null, error: null }));
  const [listed, setListed] = useState(0);
  const aborter = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => aborter.current?.abort(), []);
  /** @type {(name: string) => Ui.Handler} */
  const set = (name) => (event) =>
    setForm((old) => ({
      ...old,
      [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value,
    }));
  const experiment = form.checkpoint.split("/")[0];

  /** @param {Ui.Event} event */
  const start = async (event) => {
    event.preventDefault();
    aborter.current = new AbortController();
    setRun({ busy: true, progress: null, result: null, error: null });
    try {
      const result = await postForEvents("api/analyze-trajectories", bodyOf(form), {
        on: { progress: (progress) => setRun((old) => ({ ...old, progress })) },
        signal: aborter.current.signal,
      });
      setRun({ busy: false, progress: null, result, error: null });
    } catch (error) {
      setRun({ busy: false, progress: null, result: null, error: error.name === "AbortError" ? null : error });
    }
  };
  const asJob = async () => {
    if (!canSubmit) return signInOpen.set(true);
    try {
      const job = /** @type {Api.Job} */ (await post("api/jobs", jobOf(bodyOf(form))));
      go(`/experiments/${encodeURIComponent(job.experimentId)}`);
    } catch (error) {
      setRun((old) => ({ ...old, error }));
    }
    return undefined;
  };
  const save = async () => {
    if (!canSubmit) return signInOpen.set(true);
    if (!run.result) return undefined;
    try {
      await post(`api/experiments/${encodeURIComponent(experiment)}/analyses`, { result: run.result });
      toast("Saved with the experiment of the model.");
      setListed((times) => times + 1);
    } catch (error) {
      toast(error.message, "bad");
    }
    return undefined;
  };
  if (!bases.length)
    return html`<${Empty} icon="analysis" title="Nothing to analyse yet"
      ><p>An analysis generates texts with a model. Train a language model first.</p><//
    >`;
  const sweep = form.kind === "sweep";
  const found = findings(run.error, FIELDS);
  /** @param {string} name */
  const wrong = (name) => found.wrong(name) ?? found.wrong(`config.${snake(name)}`);
  return html`<div class="split">
    <div class="stack">
      <form class="card stack" onSubmit=${start}>
        <div class="fields">
          <${Choice} label="Kind" value=${form.kind} options=${KINDS} wrong=${wrong("kind")} onChange=${set("kind")} />
          <${Choice}
            label="Model"
            wrong=${wrong("checkpoint")}
            value=${form.checkpoint}
            options=${bases}
            onChange=${set("checkpoint")}
          />
          ${
            !sweep &&
            html`<${Choice}
              label="Modulation"
              wrong=${wrong("gatingMode")}
              value=${form.gatingMode}
              options=${MODES.filter((mode) => mode.value !== "learned" || policies.length)}
              onChange=${set("gatingMode")}
            />`
          }
          ${
            !sweep &&
            form.gatingMode === "learned" &&
            html`<${Choice}
              label="Controller"
              wrong=${wrong("rlCheckpoint")}
              value=${form.rlCheckpoint}
              options=${policies}
              onChange=${set("rlCheckpoint")}
            />`
          }
          ${
            !sweep &&
            form.gatingMode === "fixed" &&
            html`<${Field} label="Value" wrong=${wrong("modulation")}
              >${(props) =>
                html`<input
                  ...${props}
                  type="number"
                  min="0"
                  max="1"
                  step="0.01"
                  value=${form.modulation}
                  onInput=${set("modulation")}
                />`}<//
            >`
          }
        </div>
        <${Field} label="Prompts" hint="One per line" wrong=${wrong("prompts")}
          >${(props) =>
            html`<textarea ...${props} rows="4" value=${form.prompts} onInput=${set("prompts")}></textarea>`}<//
        >
        <div class="fields four">
          ${
            !sweep &&
            html`<${Field} label="Samples per prompt" wrong=${wrong("samplesPerPrompt")}
              >${(props) =>
                html`<input
                  ...${props}
                  type="number"
                  min="1"
                  max="16"
                  value=${form.samples}
                  onInput=${set("samples")}
                />`}<//
            >`
          }
          <${Field} label="Tokens per sample" wrong=${wrong("maxTokens")}
            >${(props) =>
              html`<input
                ...${props}
                type="number"
                min="1"
                max="4096"
                value=${form.maxTokens}
                onInput=${set("maxTokens")}
              />`}<//
          >
          <${Field} label="Seed" wrong=${wrong("seed")}
            >${(props) =>
              html`<input ...${props} type="number" min="0" value=${form.seed} onInput=${set("seed")} />`}<//
          >
        </div>
        ${
          !sweep &&
          html`<div class="row">
            <label class="check"
              ><input type="checkbox" checked=${form.bootstrap} onChange=${set("bootstrap")} />Bootstrap confidence
              intervals (only for several prompts)</label
            >
            <label class="check"
              ><input type="checkbox" checked=${form.extremes} onChange=${set("extremes")} />Also compare texts at
              modulation 0, 0.5 and 1</label
            >
          </div>`
        }
        <div class="row">
          <button class="button primary" disabled=${run.busy}><${Icon} name="analysis" />Analyse</button>
          ${
            run.busy &&
            html`<button type="button" class="button" onClick=${() => aborter.current?.abort()}>
              <${Icon} name="stop" />Stop
            </button>`
          }
          ${!run.busy && html`<button type="button" class="button" onClick=${asJob}>Run as a job</button>`}
          ${run.result && html`<button type="button" class="button" onClick=${save}>Save</button>`}
        </div>
        ${run.busy && html`<${AnalysisProgress} progress=${run.progress} />`}
        <${Problems} error=${run.error} found=${found} />
      </form>
      ${run.result && html`<${AnalysisView} result=${run.result} />`}
    </div>
    <aside><${SavedAnalyses} experiment=${experiment} changed=${listed} canSubmit=${canSubmit} /></aside>
  </div>`;
}

/** @param {{progress: Api.AnalysisProgress | null}} props */
const AnalysisProgress = ({ progress }) =>
  html`<div class="stack tight" role="status">
    <span class="progress"
      ><span style=${{ width: `${progress ? (100 * progress.tokens) / progress.mostTokens : 0}%` }}></span
    ></span>
    <span class="note"
      >${
        progress
          ? `${progress.texts} of ${count(progress.textsTotal, "sample")}, ${count(progress.tokens, "token")}`
          : "Waiting for the generator …"
      }</span
    >
  </div>`;
