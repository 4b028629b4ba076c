// Options of a form for checkpoints, from the reply of `GET /api/checkpoints`.
import { title } from "./format.js";

/**
 * Returns the checkpoints with the flag `wanted` (usableAsBase, usableAsPolicy) as [{value, text, kind}].
 *
 * @param {Api.CheckpointGroup[]} groups
 * @param {"usableAsBase" | "usableAsPolicy"} wanted
 */
export const choices = (groups, wanted) =>
  groups.flatMap((group) =>
    group.checkpoints
      .filter((one) => one[wanted])
      .map((one) => ({ value: one.reference, text: `${title(group)} · ${one.name}`, kind: one.kind })),
  );

/**
 * Returns the default choice: the first final model, otherwise the first training checkpoint.
 *
 * @param {{value: string, kind: string}[]} found
 */
export const preferred = (found) => (found.find((one) => one.kind !== "training") ?? found[0])?.value ?? "";
