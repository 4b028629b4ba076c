// The page with the checkpoints of all experiments.
import { html, useState } from "../lib/html.js";
import { get, query } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { href } from "../lib/router.js";
import { title } from "../lib/format.js";
import { CheckpointTable } from "../components/checkpoints.js";
import { Empty, Loaded, TYPES } from "../components/parts.js";

const PAGE = 50;

export function CheckpointsPage() {
  const state = useLoad((signal) => get(`api/checkpoints${query({ limit: PAGE })}`, signal), []);
  const [busy, setBusy] = useState(false);
  const more = async () => {
    setBusy(true);
    try {
      const next = await get(`api/checkpoints${query({ limit: PAGE, cursor: state.data?.nextCursor })}`);
      state.setData((old) => ({ experiments: [...old.experiments, ...next.experiments], nextCursor: next.nextCursor }));
    } finally {
      setBusy(false);
    }
  };
  return html`
    <div class="page-head">
      <div class="grow"><h1>Checkpoints</h1></div>
    </div>
    <${Loaded} state=${state} rows=${8}>
      ${(/** @type {Ui.Data<typeof state>} */ { experiments, nextCursor }) =>
        experiments.length || nextCursor
          ? html`<div class="stack">
              ${experiments.map(
                (group) =>
                  html`<section class="card flush" key=${group.experimentId} aria-label=${title(group)}>
                    <header class="group-head">
                      <h2>
                        <a href=${href(`/experiments/${encodeURIComponent(group.experimentId)}`)}>${title(group)}</a>
                      </h2>
                      <span class="note">${TYPES[group.type] ?? group.type}</span>
                    </header>
                    <${CheckpointTable} checkpoints=${group.checkpoints} onDeleted=${state.reload} />
                  </section>`,
              )}
              ${
                nextCursor &&
                html`<p class="more"><button class="button" disabled=${busy} onClick=${more}>Show more</button></p>`
              }
            </div>`
          : html`<${Empty} icon="checkpoints" title="No checkpoints yet"
              ><p>Checkpoints appear here as soon as a training job has written the first one.</p><//
            >`}
    <//>
  `;
}
