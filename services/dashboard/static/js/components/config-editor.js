// Shows every setting of a configuration as a field, grouped by section. Only changed settings are sent.
import { html, useId, useState } from "../lib/html.js";
import { equal, show } from "../lib/config.js";
import { count } from "../lib/format.js";
import { Field } from "./parts.js";

const OPEN = ["model", "data", "training", "ppo", "episode"];
const WITHOUT_SECTION = "general";

/**
 * Returns {section: settings} of the settings that match the search or have an error.
 *
 * @param {Ui.Flat} flat
 * @param {string} search
 * @param {Ui.Findings} findings
 */
function sections(flat, search, { wrong }) {
  /** @type {Map<string, [path: string, value: unknown][]>} */
  const found = new Map();
  for (const [path, value] of flat) {
    if (!path.includes(search) && !wrong(`config.${path}`)) continue;
    const [section] = path.includes(".") ? path.split(".") : [WITHOUT_SECTION];
    found.set(section, [...(found.get(section) ?? []), [path, value]]);
  }
  return found;
}

/**
 * Converts typed text to a value. Numbers and valid JSON are parsed, empty text means null, and other text is a string.
 * If `initial` is a string, only the text `null` means null, and all other text is a string.
 *
 * @param {string} text
 * @param {unknown} initial
 */
function parse(text, initial) {
  const trimmed = text.trim();
  if (trimmed === "" || trimmed === "null") return typeof initial === "string" && trimmed === "" ? "" : null;
  if (typeof initial === "string") return text;
  const number = Number(trimmed); // also 1e-3, .5 and +2
  if (Number.isFinite(number)) return number;
  try {
    return JSON.parse(trimmed);
  } catch {
    return text;
  }
}

/**
 * Edits a configuration. `flat` is the base configuration, and `changes` are the settings that the user changed.
 * `findings` are the errors of the whole form; the names of the settings in `findings` begin with `config.`.
 *
 * @param {{flat: Ui.Flat, changes: Ui.Flat, setChanges: (changes: Ui.Flat) => void, findings: Ui.Findings}} props
 */
export function ConfigEditor({ flat, changes, setChanges, findings }) {
  const [search, setSearch] = useState("");
  /**
   * @param {string} path
   * @param {unknown} value
   */
  const change = (path, value) => {
    const next = new Map(changes);
    if (equal(value, flat.get(path))) next.delete(path);
    else next.set(path, value);
    setChanges(next);
  };
  const groups = [...sections(flat, search.trim().toLowerCase(), findings)];
  return html`<div class="stack">
    <input
      type="search"
      aria-label="Search settings"
      placeholder="Search settings, such as max_steps or learning_rate"
      value=${search}
      onInput=${(event) => setSearch(event.target.value)}
    />
    ${groups.map(([section, entries]) => {
      const changed = entries.filter(([path]) => changes.has(path)).length;
      const wrong = entries.some(([path]) => findings.wrong(`config.${path}`));
      return html`<details
        class="section"
        key=${section}
        open=${OPEN.includes(section) || Boolean(search) || changed > 0 || wrong}
      >
        <summary>
          <strong>${section}</strong>${" "}
          <span class="note">${count(entries.length, "setting")}${changed ? `, ${changed} changed` : ""}</span>
        </summary>
        <div class="fields">
          ${entries.map(
            ([path, initial]) =>
              html`<${Setting}
                key=${path}
                path=${path}
                initial=${initial}
                changes=${changes}
                change=${change}
                wrong=${findings.wrong(`config.${path}`)}
              />`,
          )}
        </div>
      </details>`;
    })}
    ${groups.length === 0 && html`<p class="note">No setting matches.</p>`}
  </div>`;
}

/**
 * @param {{path: string, initial: unknown, changes: Ui.Flat, change: (path: string, value: unknown) => void,
 * wrong?: string}} props
 */
function Setting({ path, initial, changes, change, wrong }) {
  const id = useId();
  const changed = changes.has(path);
  const value = changed ? changes.get(path) : initial;
  const label = path.includes(".") ? path.slice(path.indexOf(".") + 1) : path;
  if (typeof initial === "boolean") {
    return html`<div>
      <label class=${`check ${changed ? "changed" : ""}`}
        ><input
          type="checkbox"
          checked=${value}
          aria-invalid=${wrong && "true"}
          aria-describedby=${wrong && id}
          onChange=${(event) => change(path, event.target.checked)}
        />${label}</label
      >
      ${wrong && html`<span class="wrong" id=${id}>${wrong}</span>`}
    </div>`;
  }
  const hint = changed ? `before: ${show(initial) || "empty"}` : undefined;
  return html`<div class=${changed ? "changed" : ""}>
    <${Field} label=${label} hint=${hint} wrong=${wrong}>
      ${(props) =>
        html`<input
          ...${props}
          inputmode=${typeof initial === "number" ? "decimal" : undefined}
          placeholder=${initial === null ? "none" : undefined}
          value=${value === null ? "" : show(value)}
          onChange=${(event) => change(path, parse(event.target.value, initial))}
        />`}
    <//>
  </div>`;
}
