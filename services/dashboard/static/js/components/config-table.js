// Shows configurations side by side, one per column. By default, only settings that differ are shown.
import { html, useState } from "../lib/html.js";
import { compare, show } from "../lib/config.js";
import { count } from "../lib/format.js";

/**
 * Shows a table with one column for each configuration in `columns`: [{title, flat}].
 *
 * @param {{columns: {title: string, flat: Ui.Flat}[]}} props
 */
export function ConfigTable({ columns }) {
  const [all, setAll] = useState(columns.length < 2);
  const [search, setSearch] = useState("");
  const rows = compare(columns.map((column) => column.flat));
  const different = rows.filter(([, , differs]) => differs).length;
  const several = columns.length > 1;
  const shown = rows.filter(
    ([name, , differs]) => (all || !several || differs) && name.includes(search.trim().toLowerCase()),
  );
  return html`<div class="stack">
    <div class="row">
      <input
        class="short"
        type="search"
        aria-label="Search settings"
        placeholder="Search settings"
        value=${search}
        onInput=${(event) => setSearch(event.target.value)}
      />
      ${
        several &&
        html`<label class="check"
          ><input type="checkbox" checked=${all} onChange=${(event) => setAll(event.target.checked)} />Show equal
          settings too</label
        >`
      }
      <span class="note"
        >${shown.length} of${" "}
        ${count(rows.length, "setting")}${
          several ? ` · ${different} ${different === 1 ? "differs" : "differ"}` : ""
        }</span
      >
    </div>
    ${
      shown.length
        ? html`<div class="card flush table-wrap">
            <table class="config">
              <thead>
                <tr>
                  <th>Setting</th>
                  ${columns.map(
                    (column) => html`<th title=${column.title}><span class="clamp">${column.title}</span></th>`,
                  )}
                </tr>
              </thead>
              <tbody>
                ${shown.map(
                  ([name, values, differs]) =>
                    html`<tr key=${name}>
                      <td class="mono">${name}</td>
                      ${values.map(
                        (value) => html`<td class=${`mono ${several && differs ? "differs" : ""}`}>${show(value)}</td>`,
                      )}
                    </tr>`,
                )}
              </tbody>
            </table>
          </div>`
        : html`<p class="message">${search ? "No setting matches." : "All settings are equal."}</p>`
    }
  </div>`;
}
