// Makes the options of a select element for checkpoints from the reply of `GET /api/checkpoints`.
import { title } from "./format.js";

/**
 * Returns the checkpoints in which the field `wanted` (usableAsBase or usableAsPolicy) is true as [{value, text,
 * kind}].
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
 * Returns the value of the default option: the first final model or, without one, the first training checkpoint.
 *
 * @param {{value: string, kind: string}[]} found
 */
export const preferred = (found) => (found.find((option) => option.kind !== "training") ?? found[0])?.value ?? "";
