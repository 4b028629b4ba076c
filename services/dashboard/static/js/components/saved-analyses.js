// Lists the saved analyses of an experiment as links, with buttons to delete them.
import { html } from "../lib/html.js";
import { get, query, remove } from "../lib/api.js";
import { count } from "../lib/format.js";
import { useLoad } from "../lib/load.js";
import { href } from "../lib/router.js";
import { Icon } from "./icons.js";
import { Failed, Time } from "./parts.js";
import { toast } from "./toasts.js";

/**
 * Returns a title for an analysis without a name.
 *
 * @param {{kind: string, request: Record<string, unknown>}} analysis
 */
const summary = ({ kind, request: { prompts } }) =>
  Array.isArray(prompts) ? `${kind}, ${count(prompts.length, "prompt")}` : kind;

/**
 * Lists the analyses that are saved with an experiment.
 *
 * @param {{experiment: string, changed: number, canSubmit: boolean}} props
 */
export function SavedAnalyses({ experiment, changed, canSubmit }) {
  const state = useLoad(
    (signal) => get(`api/experiments/${encodeURIComponent(experiment)}/analyses${query({ limit: 50 })}`, signal),
    [experiment, changed],
  );
  /** @param {string} id */
  const drop = async (id) => {
    try {
      await remove(`api/analyses/${encodeURIComponent(id)}`);
      state.reload();
    } catch (error) {
      toast(error.message, "bad");
    }
  };
  if (state.error && !state.data) return html`<${Failed} error=${state.error} retry=${state.reload} />`;
  return html`<section class="card stack" aria-label="Saved analyses">
    <h2>Saved</h2>
    ${
      state.data?.analyses.length
        ? html`<ul class="saved">
            ${state.data.analyses.map(
              (analysis) =>
                html`<li key=${analysis.id}>
                  <a href=${href("/analysis", { saved: analysis.id })}>${analysis.name ?? summary(analysis)}</a>
                  <span class="note"><${Time} at=${analysis.createdAt} /></span>
                  ${
                    canSubmit &&
                    html`<button
                      class="button quiet small"
                      aria-label="Delete this analysis"
                      onClick=${() => drop(analysis.id)}
                    >
                      <${Icon} name="trash" />
                    </button>`
                  }
                </li>`,
            )}
          </ul>`
        : html`<p class="note">No saved analyses yet.</p>`
    }
  </section>`;
}
