// Explains why the modulation of a generated text is flat: the gating mode, or a controller that learned a constant.
import { html } from "../lib/html.js";
import { get, nullIfMissing } from "../lib/api.js";
import { number } from "../lib/format.js";
import { useLoad } from "../lib/load.js";

const NEGLIGIBLE = 0.05; // NEGLIGIBLE_MODULATION in common/config/rl.py
const FEW = 8; // a shorter text does not show whether the modulation is constant

/**
 * @param {{tokens: Api.Token[], panel: Ui.Panel}} props `panel` holds the settings with which the text was generated.
 */
export function FlatNote({ tokens, panel }) {
  const values = tokens.flatMap(({ modulation }) => (modulation === null ? [] : [modulation]));
  if (values.length < FEW || panel.gatingMode === "random") return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
  if (deviation >= NEGLIGIBLE) return null;
  if (panel.gatingMode !== "learned") {
    return html`<p class="note">
      The modulation is flat because the gating mode is fixed: every token has the same m.
    </p>`;
  }
  return html`<p class="note">
    The modulation is almost flat: the controller chose m near ${number(mean)} for every token (standard deviation
    ${" "}${number(deviation, 2)}).${" "}<${FromAblation} policy=${panel.rlCheckpoint} />
  </p>`;
}

/** @param {{policy: string}} props */
function FromAblation({ policy }) {
  const experiment = policy.split("/")[0];
  const state = useLoad(
    (signal) => get(`api/experiments/${encodeURIComponent(experiment)}/ablation`, signal).catch(nullIfMissing),
    [experiment],
  );
  /** @type {Api.Ablation | undefined} */
  const result = state.data?.result;
  if (!result?.behaviour) return state.loading ? null : "No ablation shows whether it does so for other prompts.";
  const best = result.paired?.learned_minus_best_constant;
  return html`In the ablation on other prompts: ${" "}${result.behaviour.verdict} ${best?.verdict}${" "}<a
      href=${`#/experiments/${experiment}?tab=results`}
      >Results</a
    >`;
}
