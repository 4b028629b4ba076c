"""Requests about reports. The replies are in `tidal_client.wire.report`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from services.api.schemas.base import Request
from tidal_client.vocabulary import ReportPattern

MAX_MARKDOWN = 100_000
"""Maximum length of a report, in characters."""
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Markdown = Annotated[str, StringConstraints(max_length=MAX_MARKDOWN, pattern=r"^[^\x00]*$")]
ExperimentId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
MAX_EXPERIMENTS = 8
EXAMPLE = """## What we saw

```chart
{"experiments": ["20260131-120000-commit_ab12cd3-config_0123456789"], "metrics": ["Losses/Total"]}
```
"""


class ReportRequest(Request):
    """A report to store."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "First look", "markdown": EXAMPLE}]})

    title: Title
    markdown: Markdown
    """CommonMark with tables; charts are fenced blocks `chart` (docs/reports.md). Raw HTML is shown as text."""
    experiment_ids: list[ExperimentId] | None = Field(None, max_length=50)
    """The experiments that the report is about. Those in its charts are always included. In a change, null keeps the
    stored list."""


class ReportChange(ReportRequest):
    """A new title and text for a report."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "First look", "markdown": "…", "version": 3}]})

    version: int = Field(ge=1)
    """The version of the report on which the change is based."""


class GenerateReportRequest(Request):
    """A report to generate from stored data."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pattern": "full-report", "experimentIds": ["20260131-120000-commit_ab12cd3-config_0123456789"]}
            ]
        }
    )

    pattern: ReportPattern
    experiment_id: ExperimentId | None = None
    """The experiment to report on."""
    experiment_ids: list[ExperimentId] = Field([], max_length=MAX_EXPERIMENTS)
    """Several experiments to report on and to compare; a request contains either this field or experimentId."""
    title: Title | None = None
    """If null, the title is derived from the template and the experiment."""

    @model_validator(mode="after")
    def _has_experiments(self) -> Self:
        if bool(self.experiment_ids) == (self.experiment_id is not None):
            raise ValueError("give either experimentId or experimentIds with at least one id")
        return self

    @property
    def experiments(self) -> list[str]:
        """Return the ids of the experiments without duplicates, in the given order."""
        return list(dict.fromkeys(self.experiment_ids or [self.experiment_id or ""]))


class RenderRequest(Request):
    """Markdown to render."""

    markdown: Markdown
