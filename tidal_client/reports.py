"""Methods of `Client` for reports: generate, create, change, list, show, export, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .connection import ApiConnection, request_body
from .wire.report import PatternList, PatternReply, ReportList, ReportReply, ReportSummary


class ReportCalls(ApiConnection):
    """Methods of `Client` for reports."""

    def report_patterns(self) -> list[PatternReply]:
        """Return the report templates. `generate_report` takes the name of one of them as `pattern`."""
        return self._get(PatternList, "/api/reports/patterns").patterns

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
        return ReportReply.model_validate(self._request("PUT", f"/api/reports/{report.id}", json=body).json())

    def reports(
        self, *, search: str | None = None, experiment: str | None = None, limit: int | None = 50
    ) -> list[ReportSummary]:
        """Return the newest reports without their texts: at most `limit`, or all if it is None."""
        found: list[ReportSummary] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = 100 if limit is None else min(limit - len(found), 100)
            page = self._get(
                ReportList, "/api/reports", search=search, experiment=experiment, limit=size, cursor=cursor
            )
            found += page.reports
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    def report(self, report_id: str) -> ReportReply:
        """Return a report with its text. Raises NotFoundError."""
        return self._get(ReportReply, f"/api/reports/{report_id}")

    def export_report(self, report_id: str, file_format: Literal["html", "md"] = "html") -> str:
        """Return a report as HTML, or as Markdown with the last values instead of charts. Raises NotFoundError."""
        reply = self._request("GET", f"/api/reports/{report_id}/export", params={"format": file_format})
        return reply.content.decode("utf-8")

    def delete_report(self, report_id: str) -> None:
        """Delete a report. Raises NotFoundError."""
        self._request("DELETE", f"/api/reports/{report_id}")
