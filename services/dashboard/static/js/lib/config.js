// Converts configurations to flat maps of dotted names, which can be shown, compared and edited.

/**
 * Flattens nested objects: `{a: {b: 1}}` becomes `Map {"a.b" => 1}`. A list counts as a value.
 *
 * @param {unknown} value
 * @param {Ui.Flat} [into]
 * @returns {Ui.Flat}
 */
export function flatten(value, prefix = "", into = new Map()) {
  for (const [name, item] of Object.entries(value ?? {})) {
    const path = prefix ? `${prefix}.${name}` : name;
    if (item !== null && typeof item === "object" && !Array.isArray(item)) flatten(item, path, into);
    else into.set(path, item);
  }
  return into;
}

/**
 * Makes nested objects from dotted names. This is the inverse of `flatten`.
 *
 * @param {Iterable<[string, unknown]>} flat
 */
export function nest(flat) {
  /** @type {Record<string, unknown>} */
  const result = {};
  for (const [path, value] of flat) {
    const parts = path.split(".");
    let at = result;
    for (const part of parts.slice(0, -1)) at = /** @type {Record<string, unknown>} */ (at[part] ??= {});
    at[parts[parts.length - 1]] = value;
  }
  return result;
}

/**
 * Formats a value approximately as in YAML.
 *
 * @param {unknown} value
 */
export function show(value) {
  if (value === undefined) return "";
  if (value === null) return "null";
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

/**
 * @param {unknown} a
 * @param {unknown} b
 */
export const equal = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/**
 * Returns a row [name, values, differs] for each setting. `values` contains the value in each configuration.
 *
 * @param {Ui.Flat[]} flats
 * @returns {[name: string, values: unknown[], differs: boolean][]}
 */
export function compare(flats) {
  const names = [...new Set(flats.flatMap((flat) => [...flat.keys()]))];
  return names.map((name) => {
    const values = flats.map((flat) => flat.get(name));
    return [name, values, values.some((value) => !equal(value, values[0]))];
  });
}

/**
 * Returns the configurations of the language model and of the controller of an experiment in one flat map. The names of
 * the controller's settings begin with `rl.`.
 *
 * @param {Api.Config} config
 */
export function flatBoth({ config, rlConfig }) {
  return new Map([...flatten(config), ...flatten(rlConfig, "rl")]);
}
