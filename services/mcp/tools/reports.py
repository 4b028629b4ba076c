"""Tools about reports: templates, generate, read and change."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from common.errors import InvalidInputError
from services.mcp.access import Access
from services.mcp.tools.arguments import BUDGET, MaxTokens
from services.mcp.tools.experiments import without_empty
from tidal_client import Report


class ReportTools:
    """Tools about reports."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list_patterns(self, context: Context[Any, Any], max_tokens: MaxTokens = BUDGET) -> str:
        """List the templates from which generate_report makes a report."""
        found = await self._access.client(context).report_patterns()
        return self._access.reply({"patterns": [each.model_dump() for each in found]}, max_tokens)

    async def generate_report(
        self,
        context: Context[Any, Any],
        pattern: Annotated[str, Field(description="Name of a template, as in list_patterns.")],
        experiment_ids: Annotated[list[str], Field(min_length=1, max_length=8)],
        title: str | None = None,
        max_tokens: MaxTokens = 2 * BUDGET,
    ) -> str:
        """Generate and store a report about experiments. Needs a token with the scope submit."""
        made = await self._access.client(context).generate_report(pattern, experiment_ids, title=title)
        return self._access.reply(_report(made), max_tokens, hint=_HINT)

    async def update_report(
        self,
        context: Context[Any, Any],
        report_id: str,
        version: Annotated[
            int | None, Field(description="The version that the change is based on; null only reads the report.")
        ] = None,
        title: str | None = None,
        markdown: Annotated[str | None, Field(description="The whole new text.")] = None,
        max_tokens: MaxTokens = 2 * BUDGET,
    ) -> str:
        """Change title or text of a report; or show it, if nothing is given but its id.

        Fails with `report_changed` if the stored report has a newer version.
        """
        client = self._access.client(context)
        present = await client.report(report_id)
        if title is None and markdown is None:
            return self._access.reply(_report(present), max_tokens, hint=_HINT)
        if version is None:
            raise InvalidInputError(f"give the version that the change is based on; the newest is {present.version}")
        base = present.model_copy(update={"version": version})
        changed = await client.change_report(base, title=title, markdown=markdown)
        return self._access.reply({"id": changed.id, "title": changed.title, "version": changed.version}, max_tokens)


_HINT = "update_report with only the report's id shows its text; raise max_tokens"


def _report(report: Report) -> dict[str, Any]:
    return without_empty(
        {
            "id": report.id,
            "title": report.title,
            "version": report.version,
            "experiments": report.experiment_ids,
            "markdown": report.markdown,
        }
    )
