"""Reports: Markdown documents with charts about experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..vocabulary import ReportPattern
from .base import OpenEnum, Reply, UtcTime


class ReportSummary(Reply):
    """A report without its text."""

    id: str
    title: str
    pattern: Annotated[ReportPattern, OpenEnum()] | None = None
    """The template from which the report was generated; null if a user wrote the report."""
    experiment_ids: list[str]
    """The experiments that the report is about; some may have been deleted."""
    version: int
    created_at: UtcTime
    updated_at: UtcTime


class ReportReply(ReportSummary):
    """A report with its text."""

    markdown: str


class ReportList(Reply):
    """A page of reports, newest first."""

    reports: list[ReportSummary]
    next_cursor: str | None = None


class PatternReply(Reply):
    """A template from which reports can be generated."""

    name: Annotated[ReportPattern, OpenEnum()]
    about: str


class PatternList(Reply):
    """All report templates."""

    patterns: list[PatternReply]


class ReportPart(Reply):
    """A part of a rendered report."""

    kind: Literal["html", "chart", "problem"]
    html: str | None = None
    """For kind html: sanitised HTML."""
    chart: dict[str, Any] | None = None
    """For kind chart: the content of the chart block with all defaults filled in."""
    message: str | None = None
    """For kind problem: why the block is not a valid chart."""
    line: int | None = None
    """For kinds chart and problem: number of the line at which the block begins, counted from 1."""


class RenderReply(Reply):
    """A rendered report, as a list of its parts from top to bottom."""

    parts: list[ReportPart]
