"""Methods of `Client` for reports: generate, create, change, list, show, render, export, delete."""

# Generated from `tidal_client/asynchronous` by `python -m scripts.sync_client`; change it there.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..requests import request_body, segment
from ..wire.report import (
    PatternList,
    PatternReply,
    RenderReply,
    ReportList,
    ReportPart,
    ReportReply,
    ReportSummary,
)
from .connection import ApiConnection


class ReportCalls(ApiConnection):
    """Methods of `Client` for reports."""

    def report_patterns(self) -> list[PatternReply]:
        """Return the report templates. `generate_report` takes the name of one of them as `pattern`."""
        return (self._get(PatternList, "/api/reports/patterns")).patterns

    def generate_report(self, pattern: str, experiments: Sequence[str], *, title: str | None = None) -> ReportReply:
        """Generate a report about one or more experiments from their stored data. Raises NotFoundError."""
        body = request_body(pattern=pattern, experiment_ids=list(experiments), title=title)
        return self._post(ReportReply, "/api/reports/generate", body)

    def create_report(self, title: str, markdown: str, *, experiments: Sequence[str] | None = None) -> ReportReply:
        """Store a new report. Raises InvalidInputError if a chart is invalid; the error names its line."""
        ids = list(experiments) if experiments is not None else None
        body = request_body(title=title, markdown=markdown, experiment_ids=ids)
        return self._post(ReportReply, "/api/reports", body)

    def change_report(
        self, report: ReportReply, *, title: str | None = None, markdown: str | None = None
    ) -> ReportReply:
        """Change the title or text of `report`. Raises ConflictError if the stored report has a newer version."""
        body = request_body(
            version=report.version,
            title=report.title if title is None else title,
            markdown=report.markdown if markdown is None else markdown,
        )
        # A repetition is safe: the api accepts the same title and text again, whatever their version.
        reply = self._request("PUT", f"/api/reports/{segment(report.id)}", json=body, repeatable=True)
        return ReportReply.model_validate_json(reply.content)

    def reports(
        self, *, search: str | None = None, experiment: str | None = None, limit: int | None = 50
    ) -> list[ReportSummary]:
        """Return the newest reports without their texts: at most `limit`, or all if it is None."""
        query: dict[str, Any] = {"search": search, "experiment": experiment}
        return self._pages(ReportList, "/api/reports", lambda page: page.reports, limit=limit, **query)

    def report(self, report_id: str) -> ReportReply:
        """Return a report with its text. Raises NotFoundError."""
        return self._get(ReportReply, f"/api/reports/{segment(report_id)}")

    def rendered_report(self, report_id: str) -> list[ReportPart]:
        """Return a report as safe HTML and charts. Raises NotFoundError."""
        return (self._get(RenderReply, f"/api/reports/{segment(report_id)}/rendered")).parts

    def render_markdown(self, markdown: str) -> list[ReportPart]:
        """Return a text as safe HTML and charts, without storing anything."""
        return (self._post(RenderReply, "/api/reports/render", {"markdown": markdown}, repeatable=True)).parts

    def export_report(self, report_id: str, file_format: Literal["html", "md"] = "html") -> str:
        """Return a report as HTML, or as Markdown with the last values instead of charts. Raises NotFoundError."""
        path = f"/api/reports/{segment(report_id)}/export"
        reply = self._request("GET", path, params={"format": file_format})
        return reply.content.decode("utf-8")

    def delete_report(self, report_id: str) -> None:
        """Delete a report. Raises NotFoundError."""
        self._request("DELETE", f"/api/reports/{segment(report_id)}")
