// Stores the points of one experiment, keyed by kind and name of the metric. The points are loaded once; events of the
// stream then add points.
//
// A null value means that the value was not finite, because the training diverged. A null value is not drawn, but
// `diverged` returns the step of the first one. A point may arrive twice, because the stream begins a little before the
// end of the loaded points. From its first step on, an attempt of the job replaces the points of earlier attempts.
// While a chart is zoomed, points of higher resolution (`refine`) replace the thinned points. Listeners are notified of
// changes at most once in 200 ms.

/** @type {Api.Kind[]} */
export const KINDS = ["metrics", "rl-metrics"];
const NOTICE_MS = 200;
const MAX_POINTS = 12_000;

export class SeriesStore {
  constructor() {
    /** @type {Map<string, Ui.Series>} */
    this.series = new Map(); // "<kind>:<name>" -> {x: [], y: []}
    /** @type {Record<Api.Kind, number>} */
    this.attempts = { metrics: 0, "rl-metrics": 0 };
    /** @type {Set<Api.Kind>} */
    this.thinned = new Set(); // kinds of metrics of which not all points are loaded
    /** @type {Map<string, Ui.Series>} */
    this.zoomed = new Map(); // same format as `series`, with the points of the zoomed range
    /** @type {Map<string, number>} */
    this.divergedSteps = new Map(); // "<kind>:<name>" -> first step whose value was not finite
    this.version = 0;
    /** @type {Set<(version: number) => unknown>} */
    this.listeners = new Set();
    this.timer = 0;
  }

  /**
   * Replaces all points of a kind by those of a reply of `/metrics` or `/rl-metrics`.
   *
   * @param {Api.Kind} kind
   * @param {Api.Metrics} reply
   */
  load(kind, reply) {
    for (const map of [this.series, this.divergedSteps])
      for (const key of [...map.keys()]) if (key.startsWith(`${kind}:`)) map.delete(key);
    for (const [name, step] of Object.entries(reply.diverged ?? {})) this.divergedSteps.set(`${kind}:${name}`, step);
    let most = 0;
    for (const [name, points] of Object.entries(reply.series)) {
      this.series.set(`${kind}:${name}`, columns(points));
      most = Math.max(most, points.length);
    }
    if (reply.totalPoints > most) this.thinned.add(kind);
    else this.thinned.delete(kind);
    const attempt = reply.last?.attempt ?? 0;
    if (attempt !== this.attempts[kind]) this.zoomed.clear();
    this.attempts[kind] = attempt;
    this.version += 1;
    this.notify(); // without delay, because the first points should appear at once
  }

  /**
   * Replaces the points of the zoomed range by those of a reply; removes the points if the reply is null.
   *
   * @param {Api.Kind} kind
   * @param {Api.Metrics | null} reply
   */
  refine(kind, reply) {
    for (const key of [...this.zoomed.keys()]) if (key.startsWith(`${kind}:`)) this.zoomed.delete(key);
    for (const [name, points] of Object.entries(reply?.series ?? {})) {
      const line = this.series.get(`${kind}:${name}`);
      if (line && points.length) this.zoomed.set(`${kind}:${name}`, columns(points));
    }
    this.changed();
  }

  /**
   * Appends the points of an event `metrics` or `rl-metrics`.
   *
   * @param {Api.Kind} kind
   * @param {Api.MetricPoints["points"]} points
   */
  append(kind, points) {
    for (const { step, attempt, values } of points) {
      if (attempt < this.attempts[kind]) continue;
      if (attempt > this.attempts[kind]) {
        this.cut(kind, step - 1);
        this.attempts[kind] = attempt;
      }
      for (const [name, value] of Object.entries(values)) {
        const key = `${kind}:${name}`;
        if (value === null) {
          if (!this.divergedSteps.has(key)) this.divergedSteps.set(key, step);
          continue;
        }
        let line = this.series.get(key);
        if (!line) this.series.set(key, (line = { x: [], y: [] }));
        const end = line.x.length;
        if (end && line.x[end - 1] >= step) continue;
        line.x.push(step);
        line.y.push(value);
        if (end > MAX_POINTS) {
          thin(line);
          this.thinned.add(kind);
        }
      }
    }
    this.changed();
  }

  /**
   * Applies an event `rewind`, which announces a new attempt that begins after `step`: removes all later points.
   *
   * @param {Api.Rewind} rewind
   */
  rewind({ kind, attempt, step }) {
    for (const affectedKind of kind ? [kind] : KINDS) {
      if (attempt <= this.attempts[affectedKind]) continue;
      this.cut(affectedKind, step);
      this.attempts[affectedKind] = attempt;
    }
    this.changed();
  }

  /**
   * @param {Api.Kind} kind
   * @param {number} step
   */
  cut(kind, step) {
    this.zoomed.clear();
    for (const [key, first] of [...this.divergedSteps])
      if (key.startsWith(`${kind}:`) && first > step) this.divergedSteps.delete(key);
    for (const [key, line] of this.series) {
      if (!key.startsWith(`${kind}:`)) continue;
      while (line.x.length && line.x[line.x.length - 1] > step) {
        line.x.pop();
        line.y.pop();
      }
    }
  }

  /**
   * @param {Api.Kind} kind
   * @param {string} name
   */
  get(kind, name) {
    const key = `${kind}:${name}`;
    const line = this.series.get(key);
    const fine = this.zoomed.get(key);
    if (!line || !fine) return line;
    const before = line.x.findIndex((step) => step >= fine.x[0]);
    const after = line.x.findIndex((step) => step > fine.x[fine.x.length - 1]);
    /** @param {"x" | "y"} axis */
    const join = (axis) => [
      ...line[axis].slice(0, before < 0 ? undefined : before),
      ...fine[axis],
      ...(after < 0 ? [] : line[axis].slice(after)),
    ];
    return { x: join("x"), y: join("y") };
  }

  /**
   * Returns the first step at which a metric was not finite, or undefined if it was always finite.
   *
   * @param {Api.Kind} kind
   * @param {string} name
   */
  diverged(kind, name) {
    return this.divergedSteps.get(`${kind}:${name}`);
  }

  /** @param {Api.Kind} kind */
  names(kind) {
    const prefix = `${kind}:`;
    return [...this.series.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
  }

  changed() {
    this.version += 1;
    if (this.timer) return;
    this.timer = setTimeout(() => {
      requestAnimationFrame(() => {
        this.timer = 0;
        this.notify();
      });
    }, NOTICE_MS);
  }

  notify() {
    for (const listener of [...this.listeners]) listener(this.version);
  }

  /** @param {(version: number) => unknown} listener */
  watch(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/**
 * Returns the index of the last point at or before `step`, or -1 if there is none. `xs` is in ascending order.
 *
 * @param {ArrayLike<number>} xs
 * @param {number} step
 */
export function lastAt(xs, step) {
  let [low, high] = [0, xs.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= step) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** @param {{step: number, value: number}[]} points */
function columns(points) {
  return { x: points.map((point) => point.step), y: points.map((point) => point.value) };
}

/**
 * Drops every second point of the older half of a line. The newer half is not changed.
 *
 * @param {Ui.Series} line
 */
function thin(line) {
  const half = line.x.length >> 1;
  for (const values of [line.x, line.y]) {
    const older = values.slice(0, half).filter((_, i) => i % 2 === 0);
    values.splice(0, half, ...older);
  }
}

/**
 * Returns the exponential moving average with bias correction, as in Adam. `weight` in [0, 1) is the weight of the
 * earlier values.
 *
 * @param {number[]} values
 * @param {number} weight
 */
export function smooth(values, weight) {
  if (!weight) return values;
  const result = new Array(values.length);
  let mean = 0;
  let total = 0;
  for (let i = 0; i < values.length; i += 1) {
    mean = weight * mean + (1 - weight) * values[i];
    total = weight * total + (1 - weight);
    result[i] = mean / total;
  }
  return result;
}
