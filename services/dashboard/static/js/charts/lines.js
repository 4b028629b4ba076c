// Makes the lines of a catalogue chart from the points of an experiment.
import { smooth } from "./series.js";

/**
 * Returns {lines, bands, diverged} of one experiment for `chart`. For each smoothed line, `lines` also contains the
 * unsmoothed line, which is drawn behind it. `weight` in [0, 1) is the strength of the smoothing.
 *
 * @param {Ui.ChartSpec} chart
 * @param {import("./series.js").SeriesStore} store
 * @param {number} weight
 */
export function linesOf(chart, store, weight) {
  /** @type {Ui.Line[]} */
  const lines = [];
  /** @type {Ui.Band[]} */
  const bands = [];
  /** @type {Ui.Diverged[]} */
  const diverged = [];
  for (const spec of chart.lines) {
    const step = store.diverged(chart.kind, spec.name);
    if (step !== undefined) diverged.push({ label: spec.label, step });
    const found = store.get(chart.kind, spec.name);
    if (!found || !found.x.length) continue;
    const { x, y } = found;
    const smoothed = spec.smooth && weight > 0 && y.length > 4;
    if (smoothed)
      lines.push({
        label: `${spec.label} (raw)`,
        legend: spec.label,
        x,
        y,
        colour: spec.colour,
        faint: true,
        raw: true,
      });
    lines.push({ label: spec.label, x, y: smoothed ? smooth(y, weight) : y, colour: spec.colour, points: spec.points });
    const spread = spec.spread && store.get(chart.kind, spec.spread);
    if (spread && spread.x.length === x.length) {
      const at = lines.length - 1;
      /** @param {1 | -1} sign */
      const edge = (sign) => y.map((value, i) => value + sign * spread.y[i]);
      const aid = { legend: spec.label, x, colour: spec.colour, faint: true, raw: true };
      lines.push(
        { ...aid, label: `${spec.label} + spread`, y: edge(1) },
        { ...aid, label: `${spec.label} − spread`, y: edge(-1) },
      );
      bands.push([at + 1, at + 2, at]);
    }
  }
  return { lines, bands, diverged };
}
