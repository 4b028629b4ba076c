"""Generates the first section of a report about several experiments: their comparison."""

from __future__ import annotations

from collections.abc import Sequence

from common.metrics import names
from common.reports.chart_blocks import MAX_LINES
from common.reports.facts import ExperimentFacts, MetricSummary
from common.reports.templates.pieces import TYPES, ReportSection, chart
from common.reports.words import count, literal, markdown_table, number

COMPARED = {
    names.VALIDATION_LOSS: "Validation loss",
    names.BITS_PER_BYTE: "Validation bits per byte",
    names.LOSS: "Training loss",
    names.EPISODE_REWARD: "Episode reward",
}


def comparison_sections(experiments: Sequence[ExperimentFacts]) -> list[ReportSection]:
    """Return a section with a table of all experiments, and a chart of each metric that at least two of them have."""
    rows = [
        [
            f"[{literal(facts.label)}](#/experiments/{facts.id})",
            TYPES.get(facts.type, facts.type),
            _status(facts),
            count(facts.step),
            _last(facts.metrics.get(names.LOSS)),
            _lowest(facts.metrics.get(names.VALIDATION_LOSS)),
            _lowest(facts.metrics.get(names.BITS_PER_BYTE)),
            _last(facts.metrics.get(names.EPISODE_REWARD)),
        ]
        for facts in experiments
    ]
    header = [
        "Experiment",
        "Type",
        "Status",
        "Step",
        "Last loss",
        "Lowest validation loss",
        "Lowest bits per byte",
        "Last reward",
    ]
    blocks = [markdown_table(header, rows, right=(3, 4, 5, 6, 7))]
    for name, title in COMPARED.items():
        with_metric = [facts.id for facts in experiments if name in facts.metrics][:MAX_LINES]
        if len(with_metric) > 1:
            blocks.append(chart(title=title, experiments=with_metric, metrics=[name]))
    return [ReportSection("Side by side", blocks)]


def _status(facts: ExperimentFacts) -> str:
    diverged = facts.diverged_at
    return facts.status if diverged is None else f"{facts.status}, diverged at step {count(diverged)}"


def _last(ends: MetricSummary | None) -> str:
    return number(ends.last) if ends else "–"


def _lowest(ends: MetricSummary | None) -> str:
    return number(ends.lowest) if ends else "–"
