// Formats numbers, times and sizes for users. For null, most functions return an en dash.
const NONE = "–";
const grouped = new Intl.NumberFormat("en-GB");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const full = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});

/**
 * @param {number | null | undefined} value
 * @returns {value is null | undefined}
 */
const none = (value) => value === null || value === undefined || Number.isNaN(value);

/** @param {number | null | undefined} value */
export const integer = (value) => (none(value) ? NONE : grouped.format(Math.round(value)));

/**
 * Formats a number with four significant digits, and with an exponent if it is very small or very large.
 *
 * @param {number | null | undefined} value
 */
export function number(value, digits = 4) {
  if (none(value)) return NONE;
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(Math.min(digits - 1, 2));
  if (size >= 1000) return grouped.format(Math.round(value));
  return String(Number(value.toPrecision(digits)));
}

/**
 * Formats a number for axes and counters, such as `12.3 k` or `3.4 M`.
 *
 * @param {number | null | undefined} value
 */
export function compact(value) {
  if (none(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1e12) return value.toExponential(0);
  if (size >= 1e9) return `${trim(value / 1e9)} G`;
  if (size >= 1e6) return `${trim(value / 1e6)} M`;
  if (size >= 1e4) return `${trim(value / 1e3)} k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(5)));
}

/** @param {number} value */
const trim = (value) => String(Number(value.toPrecision(4)));

/** @param {number | null | undefined} share */
export const percent = (share) => (none(share) ? NONE : `${Math.floor(share * 100 + 1e-9)} %`);

/**
 * Formats a whole number with all digits, and any other number like `number`.
 *
 * @param {number} value
 */
export const exact = (value) => (Number.isInteger(value) ? integer(value) : number(value));

/**
 * Formats a number with its noun: `1 step`, `2 steps`.
 *
 * @param {number} value
 * @param {string} noun
 * @param {(value: number) => string} show
 */
export const count = (value, noun, show = exact) => `${show(value)} ${noun}${value === 1 ? "" : "s"}`;

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (none(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 99.95 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** @type {[unit: string, seconds: number][]} */
const UNITS = [
  ["d", 86_400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

/**
 * Formats a duration with its `maxUnits` largest units, such as `340 ms`, `2.5 s`, `12 s`, `3 min 20 s` or `30 d 12 h`.
 *
 * @param {number | null | undefined} seconds
 */
export function duration(seconds, maxUnits = 2) {
  if (none(seconds)) return NONE;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95 && maxUnits > 1) return `${Number(seconds.toFixed(1))} s`;
  const at = UNITS.findIndex(([, length], i) => seconds >= length - UNITS[Math.min(i + maxUnits, 3)][1] / 2);
  const shown = UNITS.slice(at, at + maxUnits);
  const smallest = shown[shown.length - 1][1];
  let remaining = Math.round(seconds / smallest) * smallest;
  return shown
    .map(([unit, length]) => {
      const amount = Math.floor(remaining / length);
      remaining -= amount * length;
      return amount && `${amount} ${unit}`;
    })
    .filter(Boolean)
    .join(" ");
}

/**
 * Formats a time relative to now, such as `just now`, `5 min ago` or `in 2 h`. A time more than a day away is formatted
 * as a date.
 *
 * @param {string | null | undefined} iso
 */
export function ago(iso, now = Date.now()) {
  if (!iso) return NONE;
  const gap = (now - Date.parse(iso)) / 1000;
  const size = Math.abs(gap);
  if (size > 86_400) return moment(iso);
  if (size < 5) return gap < 0 ? "now" : "just now";
  return gap < 0 ? `in ${duration(size, 1)}` : `${duration(size, 1)} ago`;
}

/**
 * Formats a time as date and time of day in the local time zone. The year is only shown if it is not the current one.
 *
 * @param {string | null | undefined} iso
 */
export function moment(iso) {
  if (!iso) return NONE;
  const date = new Date(iso);
  return `${(date.getFullYear() === new Date().getFullYear() ? day : dayOfYear).format(date)}, ${clock.format(date)}`;
}

/**
 * Formats a time to the second, with the time zone.
 *
 * @param {string | null | undefined} iso
 */
export const exactly = (iso) => (iso ? full.format(new Date(iso)) : "");

/**
 * Returns the name of an experiment or, if it has none, the characteristic part of its id.
 *
 * @param {{name?: string | null, id?: string, experimentId?: string}} thing
 */
export function title(thing) {
  return thing.name || shortId(thing.id || thing.experimentId || "");
}

/** @param {string} id */
export function shortId(id) {
  const match = /^(\d{8})-(\d{6})-.*?config_([0-9a-f]{6})/.exec(id);
  return match ? `${match[1]}-${match[2]} ${match[3]}` : id.length > 28 ? `${id.slice(0, 26)}…` : id;
}
