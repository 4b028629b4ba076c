// The controls of a job: a button for each signal that the job accepts now. Signals that end the job ask for
// confirmation.
import { html, useEffect, useState } from "../lib/html.js";
import { get, post } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { session, signInOpen, maySubmit } from "../lib/session.js";
import { href } from "../lib/router.js";
import { moment } from "../lib/format.js";
import { JOB_SIGNALS, hasEnded } from "../lib/job-signals.js";
import { Confirm, Dialog } from "./dialog.js";
import { Icon } from "./icons.js";
import { Time } from "./parts.js";
import { Comparison } from "./prediction.js";
import { toast } from "./toasts.js";

/**
 * Shows what will happen to the job next, and its buttons. When the value of `changed` changes, the job is loaded
 * again.
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
    <${Comparison} job=${job} />
    <div class="row">
      ${ended ? html`<${EndedButtons} job=${job} />` : html`<${Buttons} job=${job} onDone=${state.setData} />`}
    </div>
  </div>`;
}

/** @param {{job: Api.Job}} props */
function EndedButtons({ job }) {
  const resumable = job.type === "lm-training" || job.type === "rl-training";
  return html`
    ${
      resumable &&
      job.checkpointRef &&
      html`<a class="button" href=${href("/new", { resume: job.id, type: job.type })}
        ><${Icon} name="resume" />Resume from the newest checkpoint</a
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
  const canSubmit = maySubmit(useStore(session));
  const [asked, setAsked] = useState(/** @type {import("../lib/job-signals.js").JobSignal | null} */ (null));
  const [explained, setExplained] = useState(false);
  const possible = JOB_SIGNALS.filter(({ name }) =>
    name === "cancel" ? !job.cancelRequested : job.signals.includes(name),
  );
  /** @param {import("../lib/job-signals.js").JobSignal} signal */
  const act = async ({ name }) => {
    if (name === "cancel") onDone(await post(`api/jobs/${job.id}/cancel`));
    else onDone(await post(`api/jobs/${job.id}/signal`, { signal: name }));
    toast(`Requested: ${name}.`);
  };
  /** @param {import("../lib/job-signals.js").JobSignal} signal */
  const press = (signal) => {
    if (!canSubmit) signInOpen.set(true);
    else if (signal.ask) setAsked(signal);
    else act(signal).catch((error) => toast(error.message, "bad"));
  };
  return html`
    ${possible.map(
      (signal) =>
        html`<button
          key=${signal.name}
          class=${`button ${signal.danger ? "danger" : ""}`}
          title=${signal.text}
          onClick=${() => press(signal)}
        >
          <${Icon} name=${signal.icon} />${label(signal.name)}
        </button>`,
    )}
    <button class="button quiet" onClick=${() => setExplained(true)}>What do these buttons do?</button>
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
      explained &&
      html`<${Dialog} title="Signals, from the mildest to the most severe" onClose=${() => setExplained(false)}>
        <ol class="escalation">
          ${JOB_SIGNALS.map(
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
        <p class="note">
          After a signal, a job accepts only more severe ones. Only a pause can be withdrawn, with resume.
        </p>
        <div class="dialog-foot">
          <button class="button primary" onClick=${() => setExplained(false)}>Close</button>
        </div>
      <//>`
    }
  `;
}

/** @param {string} name */
const label = (name) => name[0].toUpperCase() + name.slice(1);
