// What can be asked of a job, mildest first, in the words of the api's reference (a test compares them).

/**
 * @typedef {object} Step
 * @property {Api.Signal | "cancel"} name
 * @property {string} text
 * @property {string} icon
 * @property {boolean} [own] whether the text differs from that of the reference
 * @property {boolean} [ask] ask before
 * @property {boolean} [danger]
 */

/** @type {Step[]} */
export const LADDER = [
  { name: "pause", text: "checkpoint and free the slot.", icon: "pause" },
  { name: "resume", text: "goes on from the newest checkpoint as soon as a slot is free.", icon: "resume", own: true },
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
