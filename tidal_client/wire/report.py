"""Reports: Markdown with charts about experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..vocabulary import ReportPattern
from .base import Open, Reply, UtcTime


class ReportSummary(Reply):
    """A report without its text."""

    id: str
    title: str
    pattern: Annotated[ReportPattern, Open()] | None = None
    """What it was made from; null: written by hand."""
    experiment_ids: list[str]
    """What it is about; they may be deleted by now."""
    version: int
    created_at: UtcTime
    updated_at: UtcTime


class ReportReply(ReportSummary):
    """A report."""

    markdown: str


class ReportList(Reply):
    """A page of reports, newest first."""

    reports: list[ReportSummary]
    next_cursor: str | None = None


class PatternReply(Reply):
    """A pattern that reports are made from."""

    name: Annotated[ReportPattern, Open()]
    about: str


class PatternList(Reply):
    """All patterns."""

    patterns: list[PatternReply]


class ReportPart(Reply):
    """A piece of a rendered report."""

    kind: Literal["html", "chart", "problem"]
    html: str | None = None
    """Of `html`: safe to be shown as it is."""
    chart: dict[str, Any] | None = None
    """Of `chart`: what the block says, every default filled in."""
    message: str | None = None
    """Of `problem`: why the block is no chart."""
    line: int | None = None
    """Of `chart` and `problem`: where the block begins, counted from 1."""


class RenderReply(Reply):
    """A rendered report, in its order."""

    parts: list[ReportPart]
