// One uPlot chart on a canvas. A new uPlot object is created only when lines, scales or theme change, not for new data.
//
// Colours come from CSS properties, so that both themes work. The charts of a page share cursor and zoom.
import { html, useEffect, useRef } from "../lib/html.js";
import { useStore } from "../lib/store.js";
import { theme, colour } from "../lib/theme.js";
import { compact } from "../lib/format.js";
import uPlot from "../../vendor/uplot.js";

/** @param {string} name */
const resolved = (name) => {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};
/**
 * @param {string} rgb
 * @param {number} alpha
 */
const faded = (rgb, alpha) => rgb.replace("rgb(", "rgba(").replace(")", `, ${alpha})`);

/**
 * Returns the data of all lines with a common x axis. If the lines have different steps, the axis contains all of them.
 *
 * @param {Ui.Line[]} lines
 * @param {boolean} log
 * @returns {uPlot.AlignedData}
 */
function aligned(lines, log) {
  /** @param {number[]} y */
  const values = (y) => (log ? y.map((value) => (value > 0 ? value : null)) : y);
  const shared = lines.every((line) => line.x === lines[0].x || same(line.x, lines[0].x));
  if (shared) return [lines[0]?.x ?? [], ...lines.map((line) => values(line.y))];
  return uPlot.join(lines.map((line) => [line.x, values(line.y)]));
}

/**
 * Returns whether two arrays of steps are equal. Compares only their lengths, ends and middles.
 *
 * @param {number[]} a
 * @param {number[]} b
 */
export const same = (a, b) =>
  a.length === b.length && a[0] === b[0] && a.at(-1) === b.at(-1) && a[a.length >> 1] === b[a.length >> 1];

/**
 * Removes the grid lines between powers of ten on a logarithmic axis. If no power of ten is visible, all lines are
 * kept.
 *
 * @param {(number | null)[]} splits
 */
function wholePowers(splits) {
  const powers = splits.map((value) =>
    value !== null && value > 0 && Number.isInteger(Number(Math.log10(value).toFixed(9))) ? value : null,
  );
  return powers.some((value) => value !== null) ? powers : splits;
}

/**
 * Returns the labels of an axis, with as many digits as neighbouring labels need to differ.
 *
 * @param {(number | null)[]} splits
 */
function labels(splits) {
  const shown = splits.filter((value) => value !== null);
  const plain = shown.map((value) => compact(value));
  if (new Set(plain).size === plain.length) return splits.map((value) => (value === null ? "" : compact(value)));
  const gap = Math.abs(shown[1] - shown[0]) || 1;
  const digits = Math.ceil(Math.log10(Math.max(...shown.map(Math.abs)) / gap)) + 1;
  return splits.map((value) => (value === null ? "" : String(Number(value.toPrecision(Math.min(12, digits))))));
}

/**
 * @param {PlotProps} props
 * @param {number} width
 * @param {number} height
 * @param {{onCursor?: Ui.OnCursor}} hooks
 * @returns {uPlot.Options}
 */
function options({ lines, log, range, sync, zoom, xLabel, bands }, width, height, hooks) {
  const font = `11px ${colour("--font")}`;
  const ink = resolved("--ink-faint");
  const grid = { stroke: resolved("--chart-grid"), width: 1 };
  const axis = { stroke: ink, font, grid, ticks: { show: false }, gap: 6 };
  const colours = lines.map((line) => resolved(`--chart-${line.colour}`));
  return {
    width,
    height,
    padding: [10, 14, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: false },
      y: { distr: log ? 3 : 1, range: range && !log ? range : undefined },
    },
    axes: [
      {
        ...axis,
        size: 24,
        label: xLabel,
        labelSize: xLabel ? 18 : 0,
        labelFont: font,
        values: (_, splits) => splits.map((v) => (v === null || !Number.isInteger(v) ? "" : compact(v))),
      },
      {
        ...axis,
        size: 58,
        grid: log ? { ...grid, filter: (_, splits) => wholePowers(splits) } : grid,
        values: (_, splits) => labels(splits),
      },
    ],
    series: [
      {},
      ...lines.map((line, i) => ({
        label: line.label,
        stroke: line.faint ? faded(colours[i], 0.28) : colours[i],
        width: line.faint ? 1 : 1.75,
        fill: undefined,
        points: { show: (line.points && line.x.length < 200) || line.x.length === 1, size: 5, fill: colours[i] },
        show: !line.hidden,
        spanGaps: true,
      })),
    ],
    bands: (bands ?? []).map(([high, low, at]) => ({ series: [high + 1, low + 1], fill: faded(colours[at], 0.14) })),
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      focus: { prox: 24 },
      points: { size: 6 },
      sync: sync
        ? { key: sync, setSeries: false, filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } }
        : undefined,
      bind: {
        dblclick: () => () => {
          zoom?.set(null);
          return null;
        },
      },
    },
    hooks: {
      setCursor: [(plot) => hooks.onCursor?.(plot.cursor.idx ?? null, plot)],
      setSelect: [
        (plot) => {
          const { left, width: wide } = plot.select;
          if (wide < 6) return;
          const [min, max] = [plot.posToVal(left, "x"), plot.posToVal(left + wide, "x")];
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          if (zoom) zoom.set({ min, max });
          else plot.setScale("x", { min, max });
        },
      ],
    },
  };
}

/**
 * Draws a chart. `zoom` is a store that several charts share. `plotRef` receives the uPlot object, for exports.
 * `name` is the description for screen readers. Colours are numbers from 1 to 8.
 *
 * @typedef {object} PlotProps
 * @property {Ui.Line[]} lines
 * @property {number} [height]
 * @property {boolean} [log]
 * @property {[number, number]} [range]
 * @property {string} [sync]
 * @property {Ui.Zoom} [zoom]
 * @property {string} [xLabel]
 * @property {Ui.Band[]} [bands]
 * @property {string} name
 * @property {{current: uPlot | null}} [plotRef]
 * @property {Ui.OnCursor} [onCursor]
 * @param {PlotProps} props
 */
export function Plot(props) {
  const { lines, height = 220, log = false, zoom, name, plotRef, onCursor } = props;
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {uPlot | null} */ (null));
  const hooks = useRef(/** @type {{onCursor?: Ui.OnCursor}} */ ({}));
  hooks.current.onCursor = onCursor;
  const { effective } = useStore(theme);
  const shape = JSON.stringify([
    lines.map(({ label, x, colour: c, faint, points, hidden }) => [
      label,
      c,
      faint,
      points,
      hidden,
      x.length === 1,
      x.length < 200,
    ]),
    height,
    log,
    props.range,
    props.xLabel,
    effective,
  ]);
  const data = aligned(lines, log);

  useEffect(() => {
    const frame = /** @type {HTMLElement} */ (box.current);
    const width = Math.max(120, frame.clientWidth);
    const made = new uPlot(options(props, width, height, hooks.current), data, frame);
    plot.current = made;
    if (plotRef) plotRef.current = made;
    applyZoom(made, zoom?.get());
    const observer = new ResizeObserver(() => {
      const wide = box.current?.clientWidth;
      if (wide && wide !== made.width) made.setSize({ width: wide, height });
    });
    observer.observe(frame);
    const stop = zoom?.watch((range) => applyZoom(made, range));
    return () => {
      stop?.();
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    const made = plot.current;
    if (!made || made.data === data) return;
    const range = zoom?.get();
    made.batch(() => {
      made.setData(data, !range);
      if (range) made.setScale("x", within(made, range));
    });
  });

  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    const made = plot.current;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") zoom?.set(null);
    if (!step || !made) return;
    event.preventDefault();
    const xs = made.data[0];
    const far = event.shiftKey ? Math.max(1, Math.round(xs.length / 20)) : 1;
    const at = Math.min(xs.length - 1, Math.max(0, (made.cursor.idx ?? xs.length) + step * far));
    made.setCursor({ left: made.valToPos(xs[at], "x"), top: made.over.clientHeight / 2 });
  };
  return html`<div
    class="plot"
    ref=${box}
    role="img"
    aria-label=${name}
    tabindex="0"
    onKeyDown=${onKey}
    style=${{ minHeight: `${height}px` }}
  ></div>`;
}

/**
 * Limits a range to the steps of the points. An end of the range may be missing or infinite.
 *
 * @param {uPlot} plot
 * @param {Ui.Range} range
 */
function within(plot, { min, max }) {
  const xs = plot.data[0];
  return { min: Math.max(min, Math.min(xs[0] ?? 0, max - 1)), max: Math.min(max, Math.max(xs.at(-1) ?? 1, min + 1)) };
}

/**
 * @param {uPlot} plot
 * @param {Ui.Range | null | undefined} range
 */
function applyZoom(plot, range) {
  if (range) plot.setScale("x", within(plot, range));
  else plot.setData(plot.data, true);
}
