// The page with the running jobs, the waiting jobs and their predicted starts, the workers, and the concurrency limit
// of each job type.
import { html, useEffect } from "../lib/html.js";
import { get } from "../lib/api.js";
import { follow } from "../lib/sse.js";
import { useLoad } from "../lib/load.js";
import { href } from "../lib/router.js";
import { duration, moment, shortId } from "../lib/format.js";
import { Storage } from "../components/storage.js";
import { Empty, Loaded, Progress, Status, TYPES, Time } from "../components/parts.js";

const REFRESH_MS = 5000;
/** @type {Record<string, string>} */
const WORKER_KINDS = { busy: "active", idle: "good" };

export function Queue() {
  const state = useLoad(
    async (signal) => {
      const [queues, active] = await Promise.all([get("api/queue", signal), get("api/jobs/active", signal)]);
      return { queues: queues.queues, active: active.jobs };
    },
    [],
    { every: REFRESH_MS },
  );
  useEffect(() => {
    let timer = 0;
    const stop = follow("api/jobs/stream", {
      onEvent(...[name]) {
        if (name !== "job-update") return;
        clearTimeout(timer);
        timer = setTimeout(state.reload, 300);
      },
    });
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, []);
  return html`
    <div class="page-head">
      <div class="grow"><h1>Queue and workers</h1></div>
    </div>
    <${Loaded} state=${state} rows=${8}>${(data) => html`<${View} ...${data} />`}<//>
    <${Storage} />
  `;
}

/** @param {string} id */
const experiment = (id) => href(`/experiments/${encodeURIComponent(id)}`);

/** @param {{queues: Api.Queue[], active: Api.JobRow[]}} props */
function View({ queues, active }) {
  const names = Object.fromEntries(active.map((job) => [job.id, job]));
  return html`<div class="stack">
    <section class="stack" aria-label="Running">
      <h2>Running</h2>
      ${
        active.length
          ? html`<div class="columns">
              ${active.map(
                (job) =>
                  html`<article class="card stack" key=${job.id}>
                    <div class="row apart">
                      <a class="strong" href=${experiment(job.experimentId)}>${job.name || shortId(job.id)}</a
                      ><${Status} status=${job.status} />
                    </div>
                    <${Progress} progress=${job.progress} type=${job.type} />
                    <p class="note">
                      ${TYPES[job.type] ?? job.type} · attempt ${job.attempt} · ${job.worker ?? "no worker"}
                    </p>
                  </article>`,
              )}
            </div>`
          : html`<p class="note">No job is running.</p>`
      }
    </section>
    ${queues.map((queue) => html`<${QueueView} key=${queue.queue} queue=${queue} names=${names} />`)}
  </div>`;
}

/** @param {{queue: Api.Queue, names: Record<string, Api.JobRow>}} props */
function QueueView({ queue, names }) {
  const waiting = queue.types.flatMap((type) => type.jobs.map((job) => ({ ...job, type: type.type })));
  return html`
    <section class="stack" aria-label="Waiting">
      <h2>Waiting</h2>
      ${
        waiting.length
          ? html`<div class="card flush table-wrap">
              <table>
                <thead>
                  <tr>
                    <th class="num">Position</th>
                    <th>Job</th>
                    <th class="wide">Type</th>
                    <th class="num wide">Priority</th>
                    <th>Expected start</th>
                    <th class="wide">Submitted</th>
                  </tr>
                </thead>
                <tbody>
                  ${waiting.map(
                    (job) =>
                      html`<tr key=${job.id}>
                        <td class="num">${job.position}</td>
                        <td><a href=${href(`/jobs/${job.id}`)}>${job.name || shortId(job.id)}</a></td>
                        <td class="wide">${TYPES[job.type] ?? job.type}</td>
                        <td class="num wide">${job.priority}</td>
                        <td>
                          ${
                            job.notBefore && Date.parse(job.notBefore) > Date.now()
                              ? html`not before <${Time} at=${job.notBefore} show=${moment} />`
                              : job.predictedStart
                                ? html`<${Time} at=${job.predictedStart} />`
                                : "unknown"
                          }
                        </td>
                        <td class="wide note"><${Time} at=${job.createdAt} /></td>
                      </tr>`,
                  )}
                </tbody>
              </table>
            </div>`
          : html`<p class="note">No job is waiting.</p>`
      }
    </section>
    <section class="stack" aria-label="Workers">
      <h2>Workers</h2>
      ${
        queue.workers === null
          ? html`<p class="message warn">Redis does not answer, so the workers are unknown. Running jobs continue.</p>`
          : queue.workers.length
            ? html`<div class="columns">
                ${queue.workers.map(
                  (worker) =>
                    html`<article class="card stack" key=${worker.worker}>
                      <div class="row apart">
                        <strong class="mono">${worker.worker}</strong
                        ><span class=${`status ${WORKER_KINDS[worker.state] ?? "warn"}`}>${worker.state}</span>
                      </div>
                      <dl class="facts">
                        <dt>Host</dt>
                        <dd>${worker.host}</dd>
                        <dt>Device</dt>
                        <dd>${worker.device}</dd>
                        <dt>Job</dt>
                        <dd>
                          ${
                            worker.job
                              ? html`<a href=${href(`/jobs/${worker.job}`)}
                                  >${names[worker.job]?.name || shortId(worker.job)}</a
                                >`
                              : "none"
                          }
                        </dd>
                      </dl>
                    </article>`,
                )}
              </div>`
            : html`<${Empty} icon="queue" title="No worker is running"
                ><p>Jobs wait until a worker starts: <code>python -m services.worker</code>.</p><//
              >`
      }
    </section>
    <section class="stack" aria-label="Limits">
      <h2>Limits</h2>
      <div class="card flush table-wrap">
        <table>
          <thead>
            <tr>
              <th>Type</th>
              <th class="num">Running</th>
              <th class="num">Waiting</th>
              <th class="num wide">Stale</th>
              <th class="num">Usual duration</th>
            </tr>
          </thead>
          <tbody>
            ${queue.types.map(
              (type) =>
                html`<tr key=${type.type}>
                  <td>${TYPES[type.type] ?? type.type}</td>
                  <td class="num">${type.running}${type.limit ? ` of ${type.limit}` : ""}</td>
                  <td class="num">${type.pending}</td>
                  <td class="num wide">${type.stale}</td>
                  <td class="num">${duration(type.usualSeconds)}</td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </section>
  `;
}
