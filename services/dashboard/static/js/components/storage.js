// Shows the usage of the disk, the largest experiments, and the retention setting.
import { html } from "../lib/html.js";
import { get } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { href } from "../lib/router.js";
import { bytes, count, percent, title } from "../lib/format.js";
import { Loaded, Time } from "./parts.js";

const REFRESH_MS = 60_000;
const TIGHT = 0.9;

export function Storage() {
  const state = useLoad((signal) => get("api/storage", signal), [], { every: REFRESH_MS });
  return html`<section class="stack below" aria-label="Disk">
    <h2>Disk</h2>
    <${Loaded} state=${state} rows=${3}>${(found) => html`<${View} ...${found} />`}<//>
  </section>`;
}

/** @param {Api.Storage} props */
function View({ diskBytes, freeBytes, experimentsBytes, experiments, dataBytes, largest, retentionDays, measuredAt }) {
  const used = diskBytes - freeBytes;
  /** @param {number} part */
  const share = (part) => ({ width: `${(100 * part) / diskBytes}%` });
  const others = Math.max(0, used - experimentsBytes - dataBytes);
  return html`<div class="card stack">
    <div class="disk" role="img" aria-label=${`${percent(used / diskBytes)} of the disk is used`}>
      <span class="ours" style=${share(experimentsBytes)}></span><span class="data" style=${share(dataBytes)}></span
      ><span style=${share(others)}></span>
    </div>
    <div class="legend disk-legend">
      <span
        ><i style=${{ "--swatch": "var(--accent)" }}></i>${count(experiments, "experiment")}${" "}
        <b>${bytes(experimentsBytes)}</b></span
      >
      <span><i style=${{ "--swatch": "var(--chart-3)" }}></i>corpora and token cache <b>${bytes(dataBytes)}</b></span>
      <span><i style=${{ "--swatch": "var(--line-strong)" }}></i>other files <b>${bytes(others)}</b></span>
      <span>free <b>${bytes(freeBytes)}</b> of ${bytes(diskBytes)}</span>
    </div>
    ${
      used / diskBytes > TIGHT &&
      html`<p class="message warn">
        The disk is nearly full. Delete experiments or checkpoints, or reduce TIDAL_RETENTION_DAYS.
      </p>`
    }
    <p class="note">
      ${
        retentionDays > 0
          ? `Logs and metrics are deleted ${count(retentionDays, "day")} after a job has ended; ` +
            "models, checkpoints and results are kept."
          : "Logs and metrics are kept forever (TIDAL_RETENTION_DAYS is 0)."
      }
      ${" "}Measured <${Time} at=${measuredAt} />.
    </p>
    ${
      largest.length > 0 &&
      html`<details>
        <summary>Largest experiments</summary>
        <ul class="largest">
          ${largest.map(
            (experiment) =>
              html`<li key=${experiment.id}>
                <a href=${href(`/experiments/${encodeURIComponent(experiment.id)}`)}>${title(experiment)}</a
                ><b>${bytes(experiment.sizeBytes)}</b>
              </li>`,
          )}
        </ul>
      </details>`
    }
  </div>`;
}
