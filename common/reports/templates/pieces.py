"""Building blocks of the report templates: sections, chart blocks, and sentences about the course of a metric."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.reports.facts import ExperimentFacts, MetricSummary
from common.reports.markdown import MAX_CHARTS
from common.reports.words import code, count, number
from tidal_client.vocabulary import ExperimentType

TYPES: dict[str, str] = {
    ExperimentType.LM: "language model",
    ExperimentType.RL: "controller",
    ExperimentType.EVALUATION: "evaluation",
    ExperimentType.HEADROOM: "headroom",
    ExperimentType.ABLATION: "ablation",
    ExperimentType.ANALYSIS: "analysis",
}
STILL = 0.005
"""Relative change of a metric below which a report calls the metric unchanged."""


@dataclass(frozen=True)
class ReportSection:
    """A section of a report: a heading, and blocks of Markdown."""

    title: str
    blocks: Sequence[str]

    def markdown(self, level: int) -> str:
        """Return the section as Markdown, with a heading of level `level`."""
        return "\n\n".join([f"{'#' * level} {self.title}", *self.blocks]) + "\n"


def chart(**fields: Any) -> str:
    """Return the fenced block of a chart with the given fields; fields that are None are omitted."""
    given = {name: value for name, value in fields.items() if value is not None}
    return f"```chart\n{json.dumps(given, ensure_ascii=False)}\n```"


def mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, otherwise an empty mapping: another program may have written `value`."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the items of `value` that are mappings; an empty list if `value` is not a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def fewer_charts(text: str, most: int = MAX_CHARTS) -> str:
    """Return the Markdown `text` with only its first `most` charts; a sentence replaces each further chart."""
    seen = 0

    def keep(found: re.Match[str]) -> str:
        nonlocal seen
        seen += 1
        if seen <= most:
            return found[0]
        return f"*A chart is left out here, because a report can contain at most {most} charts.*"

    return re.sub(r"^```chart\n.*\n```$", keep, text, flags=re.MULTILINE)


def course(what: str, ends: MetricSummary) -> str:
    """Return a sentence such as `The training loss fell from 10.7 (step 1) to 1.69 (step 1,500).`"""
    if ends.points == 1:
        return f"{what} was recorded once: {number(ends.last)} at step {count(ends.last_step)}."
    largest = max(abs(ends.first), abs(ends.last))
    if largest == 0 or abs(ends.last - ends.first) < STILL * largest:
        verb = "went from"
    else:
        verb = "rose from" if ends.last > ends.first else "fell from"
    return (
        f"{what} {verb} {number(ends.first)} (step {count(ends.first_step)}) "
        f"to {number(ends.last)} (step {count(ends.last_step)})."
    )


def divergence(facts: ExperimentFacts) -> list[str]:
    """Return a paragraph which states that the training diverged, or an empty list if it did not."""
    if facts.diverged_at is None:
        return []
    found = ", ".join(f"{code(name)} from step {count(step)} on" for name, step in sorted(facts.diverged.items()))
    return [
        f"**The training diverged at step {count(facts.diverged_at)}.** Not finite (NaN or infinity): {found}. "
        "The figures below use the finite values only."
    ]


def extreme(ends: MetricSummary, *, high: bool = False) -> str:
    """Return a sentence such as `Its lowest value was 1.65 at step 1,400.`, or "" if there is only one value."""
    value, step = (ends.highest, ends.highest_step) if high else (ends.lowest, ends.lowest_step)
    if ends.points < 2:
        return ""
    if step == ends.last_step:
        return f" This is the {'highest' if high else 'lowest'} value."
    return f" Its {'highest' if high else 'lowest'} value was {number(value)} at step {count(step)}."
