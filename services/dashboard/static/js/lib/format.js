// Numbers, times and sizes as people read them. Everything takes null and gives an en dash.
const NONE = "–";
const grouped = new Intl.NumberFormat("en-GB");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const none = (value) => value === null || value === undefined || Number.isNaN(value);

export const integer = (value) => (none(value) ? NONE : grouped.format(Math.round(value)));

/** Four significant digits; very small and very large ones with an exponent. */
export function number(value, digits = 4) {
  if (none(value)) return NONE;
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(Math.min(digits - 1, 2)).replace("e", "e");
  if (size >= 1000) return grouped.format(Math.round(value));
  return String(Number(value.toPrecision(digits)));
}

/** `1.2 k`, `3.4 M`: for axes and counters. */
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

const trim = (value) => String(Number(value.toPrecision(4)));

export const percent = (share) => (none(share) ? NONE : `${Math.floor(share * 100)} %`);

export function bytes(value) {
  if (none(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function seconds(value) {
  if (none(value)) return NONE;
  if (value < 60) return `${Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 86_400) return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86_400)} d ${Math.round((value % 86_400) / 3600)} h`;
}

/** `just now`, `5 min ago`, `in 2 h`; older than a day: the date. */
export function ago(iso, now = Date.now()) {
  if (!iso) return NONE;
  const gap = (now - Date.parse(iso)) / 1000;
  if (Math.abs(gap) > 86_400) return moment(iso);
  if (Math.abs(gap) < 5) return "just now";
  const text =
    Math.abs(gap) < 60
      ? `${Math.round(Math.abs(gap))} s`
      : Math.abs(gap) < 3600
        ? `${Math.round(Math.abs(gap) / 60)} min`
        : `${Math.round(Math.abs(gap) / 3600)} h`;
  return gap < 0 ? `in ${text}` : `${text} ago`;
}

export function moment(iso) {
  if (!iso) return NONE;
  const date = new Date(iso);
  return `${day.format(date)}, ${clock.format(date)}`;
}

export const exactly = (iso) => (iso ? full.format(new Date(iso)) : "");

/** An experiment's name, or the part of its id that tells it from others. */
export function title(thing) {
  return thing.name || shortId(thing.id || thing.experimentId || "");
}

export function shortId(id) {
  const match = /^(\d{8})-(\d{6})-.*?config_([0-9a-f]{6})/.exec(id);
  return match ? `${match[1]}-${match[2]} ${match[3]}` : id.length > 28 ? `${id.slice(0, 26)}…` : id;
}
