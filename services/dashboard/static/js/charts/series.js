// The points of one experiment by metric name: loaded once, then fed by the stream.
//
// Points may come twice (the stream goes on a little before what was loaded); a later attempt replaces an earlier one
// from its first step on. Watchers hear of changes at most once a frame and 200 ms.

const NOTICE_MS = 200;
const MOST_POINTS = 12_000;

export class SeriesStore {
  constructor() {
    this.series = new Map(); // "<kind>:<name>" -> {x: [], y: []}
    this.attempts = { metrics: 0, "rl-metrics": 0 };
    this.version = 0;
    this.listeners = new Set();
    this.timer = 0;
  }

  /** Take over the reply of `/metrics` or `/rl-metrics`. */
  load(kind, reply) {
    for (const key of [...this.series.keys()]) if (key.startsWith(`${kind}:`)) this.series.delete(key);
    for (const [name, points] of Object.entries(reply.series)) {
      const x = new Array(points.length);
      const y = new Array(points.length);
      for (let i = 0; i < points.length; i += 1) {
        x[i] = points[i].step;
        y[i] = points[i].value;
      }
      this.series.set(`${kind}:${name}`, { x, y });
    }
    this.attempts[kind] = reply.last?.attempt ?? 0;
    this.version += 1;
    this.tell(); // at once: until now there was nothing to see
  }

  /** Points of a `metrics` or `rl-metrics` event. */
  append(kind, points) {
    for (const { step, attempt, values } of points) {
      if (attempt < this.attempts[kind]) continue;
      if (attempt > this.attempts[kind]) {
        this.cut(kind, step - 1);
        this.attempts[kind] = attempt;
      }
      for (const [name, value] of Object.entries(values)) {
        if (value === null) continue;
        const key = `${kind}:${name}`;
        let line = this.series.get(key);
        if (!line) this.series.set(key, (line = { x: [], y: [] }));
        const end = line.x.length;
        if (end && line.x[end - 1] >= step) continue;
        line.x.push(step);
        line.y.push(value);
        if (end > MOST_POINTS) thin(line);
      }
    }
    this.changed();
  }

  /** A `rewind` event: a new attempt begins after `step`. */
  rewind({ kind, attempt, step }) {
    for (const one of kind ? [kind] : Object.keys(this.attempts)) {
      if (attempt <= this.attempts[one]) continue;
      this.cut(one, step);
      this.attempts[one] = attempt;
    }
    this.changed();
  }

  cut(kind, step) {
    for (const [key, line] of this.series) {
      if (!key.startsWith(`${kind}:`)) continue;
      while (line.x.length && line.x[line.x.length - 1] > step) {
        line.x.pop();
        line.y.pop();
      }
    }
  }

  get(kind, name) {
    return this.series.get(`${kind}:${name}`);
  }

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
        this.tell();
      });
    }, NOTICE_MS);
  }

  tell() {
    for (const listener of [...this.listeners]) listener(this.version);
  }

  watch(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** Halve the older half: what is new stays exact. */
function thin(line) {
  const half = line.x.length >> 1;
  for (const values of [line.x, line.y]) {
    const older = values.slice(0, half).filter((_, i) => i % 2 === 0);
    values.splice(0, half, ...older);
  }
}

/** Exponential moving average without the bias of its beginning; `weight` in [0, 1). */
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
