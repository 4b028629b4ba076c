// The page with the form for a new job. The user can change every setting and check the job with a dry run. Errors are
// shown at the fields.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { findings, get, post } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, signInOpen, maySubmit } from "../lib/session.js";
import { go, href, route, setParams, useTitle } from "../lib/router.js";
import { integer } from "../lib/format.js";
import { keep, recall } from "../lib/tab-storage.js";
import { choices } from "../lib/references.js";
/** @import { Draft, FormState } from "../lib/job-form.js" */
import { bodyOf, controlled, draftOf, useBase } from "../lib/job-form.js";
import { equal, flatten } from "../lib/config.js";
import { Choice } from "../components/choice.js";
import { ConfigEditor } from "../components/config-editor.js";
import { Prediction } from "../components/prediction.js";
import { Field, Loaded, Problems, TYPES } from "../components/parts.js";
import { toast } from "../components/toasts.js";

/**
 * The fields of a job's payload that name what it starts from.
 * @typedef {object} StartFields
 * @property {string} [checkpoint]
 * @property {string} [initial_checkpoint]
 * @property {string} [checkpoint_mode]
 * @property {string} [rl_checkpoint]
 */

/** @type {Api.JobType[]} */
const KINDS = ["lm-training", "rl-training", "evaluation", "headroom", "ablation"];
/** @type {Record<string, string>} */
const ABOUT = {
  "lm-training": "Pretrains a language model on a corpus.",
  "rl-training": "Trains a controller that sets the decoding parameters of a language model.",
  evaluation: "Measures perplexity and bits per byte of a language model, and generates samples.",
  headroom: "Measures what any controller could gain over the best constant modulation, before one is trained.",
  ablation: "Compares a controller with constant and random modulation.",
};
const MODES = [
  { value: "fine-tune", text: "Fine-tune: new optimiser, lower learning rate" },
  { value: "continue", text: "Continue the training state" },
];
const MIXTURE = { value: "data.sources", text: "Several corpora (data.sources)" };
/**
 * Loads the choices of the form: configuration files, datasets and checkpoints. If the form begins with the values of a
 * previous job (`from`), loads that job, too.
 *
 * @param {string | null} from
 * @param {AbortSignal} signal
 */
async function loadOptions(from, signal) {
  const [configs, datasets, checkpoints, before] = await Promise.all([
    get("api/configs", signal),
    get("api/datasets", signal),
    get("api/checkpoints?limit=200", signal),
    from ? get(`api/jobs/${encodeURIComponent(from)}`, signal) : null,
  ]);
  const texts = ["builtin:stories", ...datasets.datasets.map((dataset) => dataset.name)].map((name) => ({
    value: name,
    text: name,
  }));
  return { configs: configs.configs, texts, groups: checkpoints.experiments, before };
}

export function NewJob() {
  const { params } = useStore(route);
  const from = params.get("resume") || params.get("like");
  const state = useLoad((signal) => loadOptions(from, signal), [from]);
  return html`
    <div class="page-head">
      <div class="grow">
        <p class="sub"><a href=${href("/")}>Experiments</a> / New job</p>
        <h1>New job</h1>
      </div>
    </div>
    <${Loaded} state=${state} rows=${8}
      >${(/** @type {Ui.Data<typeof state>} */ found) =>
        html`<${Form} key=${`${found.before?.id} ${params}`} params=${params} ...${found} />`}<//
    >
  `;
}

/** @param {{params: URLSearchParams} & Ui.Data<Ui.Load<Awaited<ReturnType<typeof loadOptions>>>>} props */
function Form({ params, configs, texts, groups, before }) {
  const canSubmit = maySubmit(useStore(session));
  const resume = params.get("resume");
  const kind =
    KINDS.find((type) => type === params.get("type")) ?? KINDS.find((type) => type === before?.type) ?? KINDS[0];
  const key = draftOf(params, kind);
  const [kept] = useState(() => {
    /** @type {Draft | undefined} */
    const sent = history.state?.draft; // exists if the user submitted the form and then went back
    if (sent) history.replaceState(null, "");
    return sent ?? /** @type {Draft | null} */ (recall(key));
  });
  const payload = /** @type {StartFields} */ (before?.payload ?? {});
  const start = payload.checkpoint || (kind === "lm-training" ? payload.initial_checkpoint : "");
  /** @type {FormState} */
  const blank = {
    name: params.get("like") ? (before?.name ?? "") : "",
    tags: (before?.tags ?? []).join(", "),
    checkpointMode: MODES.find((mode) => !resume && mode.value === payload.checkpoint_mode)?.value ?? "",
    checkpoint: (!resume && start) || params.get("checkpoint") || "",
    rlCheckpoint: payload.rl_checkpoint ?? params.get("policy") ?? "",
    file: "",
    data: params.get("data") ?? "",
    priority: "0",
    notBefore: "",
    queue: true,
  };
  const [form, setForm] = useState({ ...blank, ...kept?.form });
  const [edited, setChanges] = useState(() => (kept?.edited ? new Map(kept.edited) : null));
  const [problem, setProblem] = useState(/** @type {Ui.Failure | null} */ (null));
  const [prediction, setPrediction] = useState(/** @type {Api.JobPrediction | null} */ (null));
  const [busy, setBusy] = useState(false);
  /** @type {(name: string) => Ui.Handler} */
  const set = (name) => (event) => {
    const { type, checked, value } = event.target;
    setForm((old) => ({ ...old, [name]: type === "checkbox" ? checked : value }));
    setPrediction(null);
  };
  const base = useBase({ kind, file: form.file, before });
  /** @type {Ui.Flat} */
  const given = base.own ?? new Map(params.get("data") ? [["data.source", params.get("data")]] : []);
  const changes = useMemo(
    () => new Map([...(edited ?? given)].filter(([path, value]) => !base.flat || !equal(value, base.flat.get(path)))),
    [edited, base],
  );
  const draft = { form, edited: edited && [...edited] };
  const dirty = !equal(form, blank) || (edited && !equal([...edited], [...given]));
  useEffect(() => keep(key, dirty ? draft : null), [form, edited, base]);
  useTitle("New job", before ? before.name : TYPES[kind]);
  const body = useMemo(() => bodyOf({ kind, form, changes, resume }), [kind, form, changes, resume]);
  useEffect(() => setPrediction(null), [body]);

  /** @param {boolean} dryRun */
  const submit = async (dryRun) => {
    if (!canSubmit) return signInOpen.set(true);
    setBusy(true);
    setProblem(null);
    try {
      if (dryRun) setPrediction(/** @type {Api.JobPrediction} */ (await post("api/jobs?dryRun=true", body)));
      else {
        const once = crypto.randomUUID?.() ?? String(Math.random());
        const job = /** @type {Api.Job} */ (await post("api/jobs", body, { "Idempotency-Key": once }));
        keep(key, null);
        history.replaceState({ draft }, "");
        toast((job.queuePosition ?? 0) > 1 ? `Submitted; position ${job.queuePosition} in the queue.` : "Submitted.");
        go(`/experiments/${encodeURIComponent(job.experimentId)}`);
      }
    } catch (error) {
      setProblem(error);
      setPrediction(null);
    }
    setBusy(false);
    return undefined;
  };
  const mixed = /** @type {unknown[]} */ (changes.get("data.sources") ?? []).length > 0;
  const ownsText = kind === "lm-training"; // jobs of other types use the corpus of the language model by default
  /** @type {Ui.Handler} */
  const setText = (event) => {
    const { value } = event.target;
    if (!ownsText) return set("data")(event);
    if (value === MIXTURE.value) return undefined;
    const next = new Map(changes);
    for (const name of ["data.source", "data.sources", "data.validation_source"]) next.delete(name);
    if (value && value !== base.flat?.get("data.source")) {
      next.set("data.source", value);
      // The validation corpus in the file belongs to the training corpus in the file. The user has replaced the
      // training corpus, so the validation corpus is removed.
      if (base.flat?.get("data.validation_source")) next.set("data.validation_source", null);
    }
    return setChanges(next);
  };
  /**
   * Switches to the form of another type and keeps the fields that do not depend on the type.
   *
   * @param {Api.JobType} type
   */
  const setKind = (type) => {
    const other = draftOf(params, type);
    const { name, tags, priority, notBefore, queue } = form;
    if (!recall(other)) keep(other, { form: { name, tags, priority, notBefore, queue } });
    setParams({ type });
  };
  const discard = () => {
    setForm(blank);
    setChanges(null);
    setProblem(null);
  };
  const names = [
    "name",
    "tags",
    "priority",
    "notBefore",
    ...(resume ? [] : ["checkpoint", "checkpointMode", "data.source"]),
    "rlCheckpoint",
  ];
  if (kind !== "evaluation" && !resume) names.push("configPath", "rlConfigPath");
  for (const path of base.flat?.keys() ?? []) names.push(`config.${path}`);
  const found = useMemo(() => findings(problem, names), [problem]);
  const { wrong } = found;
  const files = configs
    .filter((file) => file.kind === (controlled(kind) ? "rl" : "lm"))
    .map((file) => ({ value: file.name, text: file.name }));

  return html`<form
    class="split"
    onSubmit=${(event) => {
      event.preventDefault();
      void submit(false);
    }}
  >
    <div class="stack">
      <section class="card stack" aria-label="Job">
        ${
          resume &&
          before &&
          html`<p class="message">
            Resumes from the newest checkpoint of <strong>${before.name || before.id}</strong>, with its configuration
            and the changes below. The shape of the model cannot change.
          </p>`
        }
        <div class="kinds" role="radiogroup" aria-label="Type">
          ${KINDS.map(
            (type) =>
              html`<label class="kind" key=${type}>
                <input
                  type="radio"
                  name="kind"
                  value=${type}
                  checked=${kind === type}
                  disabled=${Boolean(resume)}
                  onChange=${() => setKind(type)}
                />
                <span><strong>${TYPES[type]}</strong><span class="note">${ABOUT[type]}</span></span>
              </label>`,
          )}
        </div>
        <div class="fields">
          <${Field} label="Name" wrong=${wrong("name")}
            >${(props) => html`<input ...${props} value=${form.name} maxlength="200" onInput=${set("name")} />`}<//
          >
          <${Field} label="Tags" hint="Separated by commas" wrong=${wrong("tags")}
            >${(props) => html`<input ...${props} value=${form.tags} onInput=${set("tags")} />`}<//
          >
          ${
            kind !== "evaluation" &&
            !resume &&
            html`<${Choice}
              label="Configuration file"
              wrong=${wrong("configPath") ?? wrong("rlConfigPath")}
              value=${form.file}
              onChange=${set("file")}
              none=${params.get("like") ? "Same as the previous job" : "Defaults"}
              options=${files}
            />`
          }
          ${
            !resume &&
            html`<${Choice}
              label=${kind === "lm-training" ? "Initial checkpoint" : "Language model"}
              wrong=${wrong("checkpoint")}
              value=${form.checkpoint}
              onChange=${set("checkpoint")}
              none=${kind === "lm-training" ? "None: train from scratch" : "Choose…"}
              options=${choices(groups, "usableAsBase")}
            />`
          }
          ${
            kind === "lm-training" &&
            !resume &&
            form.checkpoint &&
            html`<${Choice}
              label="Use of the checkpoint"
              wrong=${wrong("checkpointMode")}
              value=${form.checkpointMode}
              onChange=${set("checkpointMode")}
              none="Continue with the same text, fine-tune with another"
              options=${MODES}
            />`
          }
          ${
            !resume &&
            html`<${Choice}
              label="Text"
              wrong=${wrong("data.source")}
              value=${ownsText ? (mixed ? MIXTURE.value : (changes.get("data.source") ?? "")) : form.data}
              onChange=${setText}
              none=${ownsText ? "As in the configuration file" : "Same as the language model"}
              options=${ownsText && mixed ? [MIXTURE, ...texts] : texts}
            />`
          }
          ${
            kind === "ablation" &&
            html`<${Choice}
              label="Controller"
              wrong=${wrong("rlCheckpoint")}
              value=${form.rlCheckpoint}
              onChange=${set("rlCheckpoint")}
              none="Choose…"
              options=${choices(groups, "usableAsPolicy")}
            />`
          }
        </div>
      </section>
      <section class="card stack" aria-label="Configuration">
        <header class="row apart">
          <h2>Configuration</h2>
          <span class="note">${changes.size ? `${changes.size} changed` : "No changes"}</span>
        </header>
        ${
          base.flat
            ? html`<${ConfigEditor} flat=${base.flat} changes=${changes} setChanges=${setChanges} findings=${found} />`
            : base.error
              ? html`<p class="message bad">${base.error.message}</p>`
              : html`<p class="note">Loading…</p>`
        }
      </section>
    </div>
    <aside class="stack submit">
      <section class="card stack" aria-label="Schedule">
        <h2>Schedule</h2>
        <${Field} label="Priority" hint="−100 to 100; a higher priority runs first" wrong=${wrong("priority")}
          >${(props) =>
            html`<input
              ...${props}
              type="number"
              min="-100"
              max="100"
              value=${form.priority}
              onInput=${set("priority")}
            />`}<//
        >
        <${Field} label="Not before" hint="Earliest start, in your local time" wrong=${wrong("notBefore")}
          >${(props) =>
            html`<input ...${props} type="datetime-local" value=${form.notBefore} onInput=${set("notBefore")} />`}<//
        >
        <label class="check"
          ><input type="checkbox" checked=${form.queue} onChange=${set("queue")} />Wait in the queue if the job cannot
          start at once</label
        >
      </section>
      <section class="card stack" aria-label="Submit">
        <${Problems} error=${problem} found=${found} />
        ${
          prediction &&
          html`<p class="message good" role="status">
            Valid.${" "}
            ${
              prediction.wouldWait
                ? `The job would wait: position ${prediction.queuePosition} in the queue.`
                : "A worker is free, so the job would start at once."
            }
          </p>`
        }
        ${prediction?.training && html`<${Prediction} prediction=${prediction.training} />`}
        <div class="row">
          <button type="button" class="button" disabled=${busy} onClick=${() => submit(true)}>Check (dry run)</button>
          <button class="button primary" disabled=${busy}>Submit</button>
          ${dirty && html`<button type="button" class="button quiet" onClick=${discard}>Discard draft</button>`}
        </div>
        ${
          !canSubmit &&
          html`<p class="note">
            Submitting needs a token:${" "}
            <button type="button" class="button small" onClick=${() => signInOpen.set(true)}>Sign in</button>
          </p>`
        }
        <details>
          <summary class="note">Request</summary>
          <pre class="request">${JSON.stringify(body, null, 1)}</pre>
        </details>
        ${
          prediction &&
          html`<p class="note">
            Together with the defaults, the job has ${integer(flatten(prediction.payload).size)} settings.
          </p>`
        }
      </section>
    </aside>
  </form>`;
}
