// Functions for the form of a new job: they return the storage key of its draft, its base configuration, and its
// request.
import { useEffect, useState } from "./html.js";
import { get } from "./api.js";
import { equal, flatten, nest } from "./config.js";

/**
 * The values of the form's fields, as the user typed them.
 *
 * @typedef {object} FormState
 * @property {string} name
 * @property {string} tags
 * @property {string} checkpoint
 * @property {string} checkpointMode
 * @property {string} rlCheckpoint
 * @property {string} file
 * @property {string} data
 * @property {string} priority
 * @property {string} notBefore
 * @property {boolean} queue
 *
 * @typedef {{form: Partial<FormState>, edited?: [path: string, value: unknown][] | null}} Draft
 *
 * @typedef {{flat: Ui.Flat | null, own: Ui.Flat | null, error: Ui.Failure | null}} Base
 */

/**
 * Returns whether jobs of this type are configured by the configuration of a controller.
 *
 * @param {string} kind
 */
export const controlled = (kind) => ["rl-training", "headroom", "ablation"].includes(kind);

/**
 * Returns the storage key of the draft for a job type. Forms that were opened with different parameters have different
 * drafts.
 *
 * @param {URLSearchParams} params
 * @param {string} type
 */
export function draftOf(params, type) {
  const address = new URLSearchParams(params);
  address.set("type", type);
  return `tidal.new?${address}`;
}

/**
 * Loads the configuration that the form starts from. `flat` is the configuration file; `own` contains the settings in
 * which the previous job `before` differs from the file. Both are null until they are loaded.
 *
 * @param {{kind: string, file: string, before: Api.Job | null}} wanted
 */
export function useBase({ kind, file, before }) {
  const [state, setState] = useState(/** @type {Base} */ ({ flat: null, own: null, error: null }));
  useEffect(() => {
    let cancelled = false;
    const name = file || (controlled(kind) ? "rl_config.yaml" : "base_config.yaml");
    setState({ flat: null, own: null, error: null });
    get(`api/configs/${name}`)
      .then(({ config }) => {
        if (cancelled) return;
        const flat = flatten(kind === "evaluation" ? config?.evaluation : config);
        /** @type {Ui.Flat | null} */
        let own = null;
        if (before && before.type === kind && !file) {
          const previous = flatten(kind === "evaluation" ? before.payload.evaluation : before.payload.config);
          own = new Map([...previous].filter(([key, value]) => !equal(flat.get(key), value)));
        }
        setState({ flat, own, error: null });
      })
      .catch((error) => !cancelled && setState({ flat: null, own: null, error }));
    return () => {
      cancelled = true;
    };
  }, [kind, file]);
  return state;
}

/**
 * Converts the values of the form to the request that submits the job.
 *
 * @param {{kind: Api.JobType, form: FormState, changes: Ui.Flat, resume: string | null}} chosen
 * @returns {Api.JobRequest}
 */
export function bodyOf({ kind, form, changes, resume }) {
  /** @type {Api.JobRequest} */
  const body = { type: kind, config: nest(changes) };
  if (form.name.trim()) body.name = form.name.trim();
  const tags = form.tags
    .split(",")
    .map((tag) => tag.trim())
    .filter(Boolean);
  if (tags.length) body.tags = tags;
  if (resume) body.resumeFrom = resume;
  else {
    if (form.checkpoint) body.checkpoint = form.checkpoint;
    if (kind === "lm-training" && form.checkpoint && form.checkpointMode)
      body.checkpointMode = /** @type {Api.CheckpointMode} */ (form.checkpointMode);
    if (form.file) body[controlled(kind) ? "rlConfigPath" : "configPath"] = form.file;
  }
  if (kind !== "lm-training" && form.data && !resume) body.data = { source: form.data, validation_source: null };
  if (kind === "ablation" && form.rlCheckpoint) body.rlCheckpoint = form.rlCheckpoint;
  if (Number(form.priority)) body.priority = Number(form.priority);
  if (form.notBefore) body.notBefore = new Date(form.notBefore).toISOString();
  if (!form.queue) body.queue = false;
  return body;
}
