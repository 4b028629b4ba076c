// The signals that a user can send to a job, from mild to severe. A test compares the texts with the API reference.

/**
 * A signal, or the cancellation of a job.
 *
 * @typedef {object} JobSignal
 * @property {Api.Signal | "cancel"} name
 * @property {string} text
 * @property {string} icon
 * @property {boolean} [own] whether the text differs from that of the reference
 * @property {boolean} [ask] whether the user must confirm
 * @property {boolean} [danger]
 */

/** @type {JobSignal[]} */
export const JOB_SIGNALS = [
  { name: "pause", text: "checkpoint and free the slot.", icon: "pause" },
  {
    name: "resume",
    text: "continue from the newest checkpoint as soon as a worker is free.",
    icon: "resume",
    own: true,
  },
  { name: "complete", text: "end training now, evaluate, write the final model.", icon: "finish", ask: true },
  { name: "stop", text: "checkpoint and cancel.", icon: "stop", ask: true },
  {
    name: "cancel",
    text: "Like stop, and the trainer is killed at the end of its grace. Pending and paused jobs end at once.",
    icon: "cross",
    ask: true,
    danger: true,
  },
];
export const ENDED = ["completed", "failed", "cancelled", "imported"];
/** @param {string} status */
export const hasEnded = (status) => ENDED.includes(status);
