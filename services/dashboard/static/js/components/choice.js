// A select element. If the current value is not among the options, an option for it is shown as well.
import { html } from "../lib/html.js";
import { Field } from "./parts.js";

/**
 * Shows a labelled select. `options` are [{value, text}]. `none` is the text of an additional option with an empty
 * value.
 *
 * @param {{label: string, value: string, options: Ui.Option[], onChange: Ui.Handler, none?: string, wrong?: string,
 * hint?: string}} props
 */
export function Choice({ label, value, options, onChange, none, wrong, hint }) {
  const known = !value || options.some((option) => option.value === value);
  return html`<${Field} label=${label} wrong=${wrong} hint=${hint}>
    ${(props) =>
      html`<select ...${props} value=${value} onChange=${onChange}>
        ${none && html`<option value="">${none}</option>`}
        ${!known && html`<option value=${value} selected>${value}</option>`}
        ${options.map(
          (option) => html`<option value=${option.value} selected=${option.value === value}>${option.text}</option>`,
        )}
      </select>`}
  <//>`;
}
