// Shows a rendered report: safe HTML from the server, and charts. Charts are not rendered again when only text changes.
import { html, useMemo } from "../lib/html.js";
import { ReportChart } from "./report-chart.js";

/**
 * Shows a report. `parts` come from the reply of `POST /api/reports/render`.
 *
 * @param {{parts: Api.ReportPart[], empty?: string}} props
 */
export function ReportBody({ parts, empty = "This report is empty." }) {
  const keyed = useMemo(() => withKeys(parts), [parts]);
  if (!parts.length) return html`<p class="note">${empty}</p>`;
  return html`<article class="report">
    ${keyed.map(([key, part]) => {
      if (part.kind === "html")
        return html`<div class="prose" key=${key} dangerouslySetInnerHTML=${{ __html: part.html }}></div>`;
      if (part.kind === "chart") return html`<${ReportChart} key=${key} chart=${part.chart} />`;
      return html`<p class="message bad" key=${key}><strong>Line ${part.line}</strong> ${part.message}</p>`;
    })}
  </article>`;
}

/**
 * Returns [key, part] for each part. The key of a chart changes only if its block in the Markdown text changes.
 *
 * @param {Api.ReportPart[]} parts
 * @returns {[key: string, part: Api.ReportPart][]}
 */
function withKeys(parts) {
  const seen = new Map();
  return parts.map((part, i) => {
    if (part.kind !== "chart") return [`${part.kind}-${i}`, part];
    const text = JSON.stringify(part.chart);
    const count = (seen.get(text) ?? 0) + 1;
    seen.set(text, count);
    return [`${text}-${count}`, part];
  });
}
