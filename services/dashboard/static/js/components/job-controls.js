// Steering one job: buttons for what it takes now, each explained, the severe ones asked about first.
import { html, useEffect, useState } from "../lib/html.js";
import { get, post } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, signInOpen, maySubmit } from "../lib/session.js";
import { href } from "../lib/router.js";
import { moment } from "../lib/format.js";
import { LADDER, hasEnded } from "../lib/ladder.js";
import { Confirm, Dialog } from "./dialog.js";
import { Icon } from "./icons.js";
import { Time } from "./parts.js";
import { toast } from "./toasts.js";

/**
 * Shows what happens next to a job, and its buttons. A new value of `changed` loads the job again.
 *
 * @param {{jobId: string, changed: number}} props
 */
export function JobControls({ jobId, changed }) {
  const state = useLoad((signal) => get(`api/jobs/${jobId}`, signal), [jobId]);
  useEffect(() => {
    if (state.data) state.reload();
  }, [changed]);
  const job = state.data;
  if (!job) return null;
  const ended = hasEnded(job.status);
  const waits = job.notBefore !== null && job.status === "pending" && Date.parse(job.notBefore) > Date.now();
  return html`<div class="job-controls">
    ${
      job.error &&
      html`<p class="message ${ended ? "bad" : "warn"}"><strong>${job.error.code}</strong> ${job.error.message}</p>`
    }
    ${
      job.whatNext &&
      html`<p class="note">
        ${job.whatNext}${waits && html` Not before <${Time} at=${job.notBefore} show=${moment} />.`}
      </p>`
    }
    <div class="row">
      ${ended ? html`<${After} job=${job} />` : html`<${Buttons} job=${job} onDone=${state.setData} />`}
    </div>
  </div>`;
}

/** @param {{job: Api.Job}} props */
function After({ job }) {
  const trains = job.type === "lm-training" || job.type === "rl-training";
  return html`
    ${
      trains &&
      job.checkpointRef &&
      html`<a class="button" href=${href("/new", { resume: job.id, type: job.type })}
        ><${Icon} name="resume" />Go on from its checkpoint</a
      >`
    }
    ${
      !["analysis", "dataset"].includes(job.type) &&
      html`<a class="button" href=${href("/new", { like: job.id })}><${Icon} name="plus" />New job like this</a>`
    }
  `;
}

/** @param {{job: Api.Job, onDone: (job: Api.Job) => void}} props */
function Buttons({ job, onDone }) {
  const may = maySubmit(useStore(session));
  const [asked, setAsked] = useState(/** @type {import("../lib/ladder.js").Step | null} */ (null));
  const [ladder, setLadder] = useState(false);
  const possible = LADDER.filter(({ name }) => (name === "cancel" ? !job.cancelRequested : job.signals.includes(name)));
  /** @param {import("../lib/ladder.js").Step} step */
  const act = async ({ name }) => {
    if (name === "cancel") onDone(await post(`api/jobs/${job.id}/cancel`));
    else onDone(await post(`api/jobs/${job.id}/signal`, { signal: name }));
    toast(`Asked to ${name}.`);
  };
  /** @param {import("../lib/ladder.js").Step} step */
  const press = (step) => {
    if (!may) signInOpen.set(true);
    else if (step.ask) setAsked(step);
    else act(step).catch((error) => toast(error.message, "bad"));
  };
  return html`
    ${possible.map(
      (step) =>
        html`<button
          key=${step.name}
          class=${`button ${step.danger ? "danger" : ""}`}
          title=${step.text}
          onClick=${() => press(step)}
        >
          <${Icon} name=${step.icon} />${label(step.name)}
        </button>`,
    )}
    <button class="button quiet" onClick=${() => setLadder(true)}>What do these do?</button>
    ${
      asked &&
      html`<${Confirm}
        title=${`${label(asked.name)} this job?`}
        text=${label(asked.text)}
        action=${`${label(asked.name)} job`}
        dismiss=${["pending", "paused"].includes(job.status) ? "Keep the job" : "Keep running"}
        danger=${asked.danger}
        act=${() => act(asked)}
        onClose=${() => setAsked(null)}
      />`
    }
    ${
      ladder &&
      html`<${Dialog} title="From mild to severe" onClose=${() => setLadder(false)}>
        <ol class="ladder">
          ${LADDER.map(
            ({ name, text, icon }) =>
              html`<li>
                <${Icon} name=${icon} />
                <div>
                  <strong>${label(name)}</strong>
                  <p>${label(text)}</p>
                </div>
              </li>`,
          )}
        </ol>
        <p class="note">A wish only becomes more severe; a pause alone can be taken back with resume.</p>
        <div class="dialog-foot"><button class="button primary" onClick=${() => setLadder(false)}>Close</button></div>
      <//>`
    }
  `;
}

/** @param {string} name */
const label = (name) => name[0].toUpperCase() + name.slice(1);
