"""Methods of `AsyncClient` for reports: generate, create, change, list, show, render, export, delete."""

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
from .connection import AsyncApiConnection


class AsyncReportCalls(AsyncApiConnection):
    """Methods of `AsyncClient` for reports."""

    async def report_patterns(self) -> list[PatternReply]:
        """Return the report templates. `generate_report` takes the name of one of them as `pattern`."""
        return (await self._get(PatternList, "/api/reports/patterns")).patterns

    async def generate_report(
        self, pattern: str, experiments: Sequence[str], *, title: str | None = None
    ) -> ReportReply:
        """Generate a report about one or more experiments from their stored data. Raises NotFoundError."""
        body = request_body(pattern=pattern, experiment_ids=list(experiments), title=title)
        return await self._post(ReportReply, "/api/reports/generate", body)

    async def create_report(
        self, title: str, markdown: str, *, experiments: Sequence[str] | None = None
    ) -> ReportReply:
        """Store a new report. Raises InvalidInputError if a chart is invalid; the error names its line."""
        ids = list(experiments) if experiments is not None else None
        body = request_body(title=title, markdown=markdown, experiment_ids=ids)
        return await self._post(ReportReply, "/api/reports", body)

    async def change_report(
        self, report: ReportReply, *, title: str | None = None, markdown: str | None = None
    ) -> ReportReply:
        """Change the title or text of `report`. Raises ConflictError if the stored report has a newer version."""
        body = request_body(
            version=report.version,
            title=report.title if title is None else title,
            markdown=report.markdown if markdown is None else markdown,
        )
        # A repetition is safe: the api accepts the same title and text again, whatever their version.
        reply = await self._request("PUT", f"/api/reports/{segment(report.id)}", json=body, repeatable=True)
        return ReportReply.model_validate_json(reply.content)

    async def reports(
        self, *, search: str | None = None, experiment: str | None = None, limit: int | None = 50
    ) -> list[ReportSummary]:
        """Return the newest reports without their texts: at most `limit`, or all if it is None."""
        query: dict[str, Any] = {"search": search, "experiment": experiment}
        return await self._pages(ReportList, "/api/reports", lambda page: page.reports, limit=limit, **query)

    async def report(self, report_id: str) -> ReportReply:
        """Return a report with its text. Raises NotFoundError."""
        return await self._get(ReportReply, f"/api/reports/{segment(report_id)}")

    async def rendered_report(self, report_id: str) -> list[ReportPart]:
        """Return a report as safe HTML and charts. Raises NotFoundError."""
        return (await self._get(RenderReply, f"/api/reports/{segment(report_id)}/rendered")).parts

    async def render_markdown(self, markdown: str) -> list[ReportPart]:
        """Return a text as safe HTML and charts, without storing anything."""
        return (await self._post(RenderReply, "/api/reports/render", {"markdown": markdown}, repeatable=True)).parts

    async def export_report(self, report_id: str, file_format: Literal["html", "md"] = "html") -> str:
        """Return a report as HTML, or as Markdown with the last values instead of charts. Raises NotFoundError."""
        path = f"/api/reports/{segment(report_id)}/export"
        reply = await self._request("GET", path, params={"format": file_format})
        return reply.content.decode("utf-8")

    async def delete_report(self, report_id: str) -> None:
        """Delete a report. Raises NotFoundError."""
        await self._request("DELETE", f"/api/reports/{segment(report_id)}")
