// The settings of one panel of the playground: the model, the gating mode, and the parameters of that mode.
import { html } from "../lib/html.js";
import { Choice } from "./choice.js";
import { Field } from "./parts.js";

const MODES = {
  none: "None: the parameters below",
  fixed: "Fixed modulation",
  random: "Random modulation per token",
  learned: "Learned: a controller",
};

/**
 * @param {{panel: Ui.Panel, bases: Ui.Option[], policies: Ui.Option[], wrong: (name: string) => string | undefined,
 * onChange: (change: Partial<Ui.Panel>) => void}} props
 */
export function PanelSettings({ panel, bases, policies, wrong, onChange }) {
  /** @type {(name: keyof Ui.Panel) => Ui.Handler} */
  const set = (name) => (event) => onChange({ [name]: event.target.value });
  /**
   * @param {keyof Ui.Panel} name
   * @param {string} label
   * @param {Ui.Option[]} options
   */
  const select = (name, label, options) =>
    html`<${Choice}
      label=${label}
      wrong=${wrong(name)}
      value=${panel[name]}
      options=${options}
      onChange=${set(name)}
    />`;
  /**
   * @param {keyof Ui.Panel} name
   * @param {string} label
   * @param {number} min
   * @param {number} max
   * @param {number} step
   */
  const numeric = (name, label, min, max, step) =>
    html`<${Field} label=${label} wrong=${wrong(name)}>
      ${(props) =>
        html`<input
          ...${props}
          type="number"
          min=${min}
          max=${max}
          step=${step}
          value=${panel[name]}
          onInput=${set(name)}
        />`}
    <//>`;
  return html`<div class="fields roomy">
    ${select("checkpoint", "Model", bases)}
    ${select(
      "gatingMode",
      "Gating",
      Object.entries(MODES)
        .filter(([mode]) => mode !== "learned" || policies.length || panel.rlCheckpoint)
        .map(([value, text]) => ({ value, text })),
    )}
    ${panel.gatingMode === "learned" && select("rlCheckpoint", "Controller", policies)}
    ${
      panel.gatingMode === "fixed" &&
      html`<${Field} label=${`Modulation ${Number(panel.modulation).toFixed(2)}`}>
        ${(props) =>
          html`<input
            ...${props}
            type="range"
            min="0"
            max="1"
            step="0.01"
            value=${panel.modulation}
            onInput=${set("modulation")}
          />`}
      <//>`
    }
    ${
      panel.gatingMode === "none" &&
      html`<div class="fields four">
        ${numeric("temperature", "Temperature", 0, 100, 0.01)} ${numeric("topK", "Top-k", 1, 1024, 1)}
        ${numeric("topP", "Top-p", 0.01, 1, 0.01)} ${numeric("repetitionPenalty", "Repetition penalty", 0.1, 100, 0.01)}
      </div>`
    }
  </div>`;
}
