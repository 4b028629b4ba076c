"""Calls on reports: make, write, change, find, export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .connection import Connection, request_body
from .wire.report import PatternList, PatternReply, ReportList, ReportReply, ReportSummary


class ReportCalls(Connection):
    """Part of `Client`."""

    def report_patterns(self) -> list[PatternReply]:
        """What `generate_report` can make."""
        return self._get(PatternList, "/api/reports/patterns").patterns

    def generate_report(self, pattern: str, experiments: Sequence[str], *, title: str | None = None) -> ReportReply:
        """Make a report about one or several experiments from what is stored. NotFoundError."""
        body = request_body(pattern=pattern, experiment_ids=list(experiments), title=title)
        return self._post(ReportReply, "/api/reports/generate", body)

    def create_report(self, title: str, markdown: str, *, experiments: Sequence[str] | None = None) -> ReportReply:
        """Keep a report. InvalidInputError names the line of a chart that is none."""
        given = list(experiments) if experiments is not None else None
        return self._post(
            ReportReply, "/api/reports", request_body(title=title, markdown=markdown, experiment_ids=given)
        )

    def change_report(
        self, report: ReportReply, *, title: str | None = None, markdown: str | None = None
    ) -> ReportReply:
        """A new title or text for `report`, as `Client.report` gave it. ConflictError when it was changed since."""
        body = request_body(
            version=report.version,
            title=report.title if title is None else title,
            markdown=report.markdown if markdown is None else markdown,
        )
        return ReportReply.model_validate(self._request("PUT", f"/api/reports/{report.id}", json=body).json())

    def reports(
        self, *, search: str | None = None, experiment: str | None = None, limit: int | None = 50
    ) -> list[ReportSummary]:
        """The newest reports, at most `limit` (None: all), without their texts."""
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
        """One with its text. NotFoundError."""
        return self._get(ReportReply, f"/api/reports/{report_id}")

    def export_report(self, report_id: str, form: Literal["html", "md"] = "html") -> str:
        """The file's text: one HTML page, or Markdown with the charts' end values. NotFoundError."""
        reply = self._request("GET", f"/api/reports/{report_id}/export", params={"format": form})
        return reply.content.decode("utf-8")

    def delete_report(self, report_id: str) -> None:
        """Delete one. NotFoundError."""
        self._request("DELETE", f"/api/reports/{report_id}")
