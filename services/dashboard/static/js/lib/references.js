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
      .filter((checkpoint) => checkpoint[wanted])
      .map((checkpoint) => ({
        value: checkpoint.reference,
        text: `${title(group)} · ${checkpoint.name}`,
        kind: checkpoint.kind,
      })),
  );

/**
 * Returns the default choice: the first final model, otherwise the first training checkpoint.
 *
 * @param {{value: string, kind: string}[]} found
 */
export const preferred = (found) => (found.find((option) => option.kind !== "training") ?? found[0])?.value ?? "";
