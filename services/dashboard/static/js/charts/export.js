// Saves a chart as a file: a CSV file with all loaded points, or a PNG image of the chart with title and legend.
import { colour } from "../lib/theme.js";

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {string} text */
const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/**
 * Returns the lines as CSV, with a row per step and a column per line. A cell is empty if its line has no point at its
 * step.
 *
 * @param {Ui.Line[]} lines
 */
export function csv(lines, x = "step") {
  const columns = lines.map((line) => new Map(line.x.map((step, i) => [step, line.y[i]])));
  const steps = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const rows = steps.map((step) => [step, ...columns.map((column) => column.get(step) ?? "")].join(","));
  return `${[x, ...lines.map((line) => line.label)].map(cell).join(",")}\n${rows.join("\n")}\n`;
}

/**
 * @param {Ui.Line[]} lines
 * @param {string} name
 */
export const saveCsv = (lines, name) => download(new Blob([csv(lines)], { type: "text/csv" }), `${name}.csv`);

/**
 * @param {Ui.Plot} plot
 * @param {string} title
 * @param {Ui.Line[]} legend
 * @param {string} name
 */
export function savePng(plot, title, legend, name) {
  const ratio = devicePixelRatio;
  const source = plot.ctx.canvas;
  const head = 34 * ratio;
  const foot = 26 * ratio;
  const canvas = document.createElement("canvas");
  canvas.width = source.width;
  canvas.height = source.height + head + foot;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  /** @param {string} property */
  const paint = (property) => {
    const probe = document.createElement("span");
    probe.style.color = `var(${property})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  context.fillStyle = paint("--surface");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = paint("--ink");
  context.font = `600 ${15 * ratio}px ${colour("--font")}`;
  context.fillText(title, 14 * ratio, 23 * ratio);
  context.drawImage(source, 0, head);
  context.font = `${12 * ratio}px ${colour("--font")}`;
  let left = 14 * ratio;
  for (const line of legend) {
    context.fillStyle = paint(`--chart-${line.colour}`);
    context.fillRect(left, canvas.height - 16 * ratio, 12 * ratio, 3 * ratio);
    context.fillStyle = paint("--ink-soft");
    context.fillText(line.label, left + 18 * ratio, canvas.height - 10 * ratio);
    left += 34 * ratio + context.measureText(line.label).width;
  }
  canvas.toBlob((blob) => blob && download(blob, `${name}.png`));
}
