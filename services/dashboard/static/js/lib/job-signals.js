// The signals that a user can send to a job, from the mildest to the most severe. A test compares their texts with
// those of the API reference.

/**
 * A signal, or the cancellation of a job.
 *
 * @typedef {object} JobSignal
 * @property {Api.Signal | "cancel"} name
 * @property {string} text
 * @property {string} icon
 * @property {boolean} [own] whether `text` differs from the text in the API reference
 * @property {boolean} [ask] whether the user must confirm
 * @property {boolean} [danger]
 */

/** @type {JobSignal[]} */
export const JOB_SIGNALS = [
  { name: "pause", text: "write a checkpoint and free the worker.", icon: "pause" },
  {
    name: "resume",
    text: "continue from the newest checkpoint as soon as a worker is free.",
    icon: "resume",
    own: true,
  },
  {
    name: "complete",
    text: "end the training now, evaluate, and write the final model.",
    icon: "finish",
    ask: true,
  },
  { name: "stop", text: "write a checkpoint, then cancel the job.", icon: "stop", ask: true },
  {
    name: "cancel",
    text: "is like the signal stop, and kills the trainer after a grace period. Pending and paused jobs end at once.",
    icon: "cross",
    own: true,
    ask: true,
    danger: true,
  },
];
export const ENDED = ["completed", "failed", "cancelled", "imported"];
/** @param {string} status */
export const hasEnded = (status) => ENDED.includes(status);
