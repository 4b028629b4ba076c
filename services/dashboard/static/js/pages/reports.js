// The page that lists all reports, newest first, with filters by title and experiment.
// A button creates a report.
import { html, useEffect, useState } from "../lib/html.js";
import { get, query } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { href, route, setParams } from "../lib/router.js";
import { shortId } from "../lib/format.js";
import { Icon } from "../components/icons.js";
import { Empty, Loaded, Time } from "../components/parts.js";
import { NewReport, templateName } from "../components/new-report.js";
import { toast } from "../components/toasts.js";

const PAGE = 100;

export function Reports() {
  const { params } = useStore(route);
  const search = params.get("search") ?? "";
  const experiment = params.get("experiment") ?? "";
  /**
   * @param {string | null} [cursor]
   * @returns {"api/reports" | `api/reports?${string}`}
   */
  const address = (cursor) => `api/reports${query({ search, experiment, limit: PAGE, cursor })}`;
  const state = useLoad((signal) => get(address(), signal), [search, experiment]);
  const [busy, setBusy] = useState(false);
  const more = async () => {
    setBusy(true);
    try {
      const next = await get(address(state.data?.nextCursor));
      state.setData((old) => ({ reports: [...old.reports, ...next.reports], nextCursor: next.nextCursor }));
    } catch (error) {
      toast(error.message, "bad");
    }
    setBusy(false);
  };
  return html`
    <div class="page-head">
      <div class="grow"><h1>Reports</h1></div>
      <${NewReport} primary experiments=${experiment ? [experiment] : []} />
    </div>
    <div class="row report-filters">
      <${Search} search=${search} />
      ${
        experiment &&
        html`<button class="button small" onClick=${() => setParams({ experiment: "" })}>
          <${Icon} name="cross" />About ${shortId(experiment)}
        </button>`
      }
    </div>
    <div class="card flush">
      <${Loaded} state=${state} rows=${6}>
        ${(/** @type {Ui.Data<typeof state>} */ { reports }) =>
          reports.length
            ? html`<${Table} reports=${reports} />`
            : search || experiment
              ? html`<${Empty} icon="search" title="Nothing matches"
                  ><button class="button" onClick=${() => setParams({ search: "", experiment: "" })}>
                    Show all reports
                  </button><//
                >`
              : html`<${Empty} icon="report" title="There are no reports yet"
                  ><p>
                    A report is a text with charts that stay up to date. Generate one from an experiment, then edit it.
                  </p>
                  <${NewReport} primary
                /><//>`}
      <//>
    </div>
    ${
      state.data?.nextCursor &&
      html`<p class="more"><button class="button" disabled=${busy} onClick=${more}>Show more</button></p>`
    }
  `;
}

/** @param {{search: string}} props */
function Search({ search }) {
  const [text, setText] = useState(search);
  useEffect(() => setText(search), [search]);
  useEffect(() => {
    const timer = setTimeout(() => text !== search && setParams({ search: text }, true), 250);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<form role="search" onSubmit=${(event) => event.preventDefault()}>
    <input
      type="search"
      aria-label="Search by title"
      placeholder="Search by title"
      value=${text}
      onInput=${(event) => setText(event.target.value)}
    />
  </form>`;
}

/** @param {{reports: Api.ReportRow[]}} props */
const Table = ({ reports }) =>
  html`<div class="table-wrap">
    <table class="reports">
      <thead>
        <tr>
          <th>Report</th>
          <th class="wide">Template</th>
          <th class="wide">About</th>
          <th class="nowrap">Changed</th>
        </tr>
      </thead>
      <tbody>
        ${reports.map(
          (report) =>
            html`<tr key=${report.id}>
              <td class="name"><a href=${href(`/reports/${encodeURIComponent(report.id)}`)}>${report.title}</a></td>
              <td class="wide">${report.pattern ? templateName(report.pattern) : "manual"}</td>
              <td class="wide"><${About} ids=${report.experimentIds} /></td>
              <td class="note nowrap"><${Time} at=${report.updatedAt} /></td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;

/** @param {{ids: string[], max?: number}} props */
export const About = ({ ids, max = 2 }) =>
  html`<span class="about">
    ${ids
      .slice(0, max)
      .map(
        (id) =>
          html`<a class="mono" key=${id} href=${href(`/experiments/${encodeURIComponent(id)}`)}>${shortId(id)}</a>`,
      )}
    ${ids.length > max && html`<span class="note">and ${ids.length - max} more</span>`}
  </span>`;
