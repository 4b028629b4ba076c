"""Several experiments beside each other: the beginning of a report about more than one."""

from __future__ import annotations

from collections.abc import Sequence

from common.metrics import names
from common.reports.chart_blocks import MAX_LINES
from common.reports.facts import Ends, ExperimentFacts
from common.reports.patterns.pieces import TYPES, Section, chart
from common.reports.words import count, literal, number, table

COMPARED = {
    names.VALIDATION_LOSS: "Validation loss",
    names.LOSS: "Training loss",
    names.EPISODE_REWARD: "Episode reward",
}


def sections(experiments: Sequence[ExperimentFacts]) -> list[Section]:
    """A table of all, and a chart of each quantity that at least two of them have."""
    rows = [
        [
            f"[{literal(its.label)}](#/experiments/{its.id})",
            TYPES.get(its.type, its.type),
            _status(its),
            count(its.step),
            _last(its.metrics.get(names.LOSS)),
            _lowest(its.metrics.get(names.VALIDATION_LOSS)),
            _last(its.metrics.get(names.EPISODE_REWARD)),
        ]
        for its in experiments
    ]
    header = ["Experiment", "Type", "Status", "Step", "Last loss", "Lowest validation loss", "Last reward"]
    blocks = [table(header, rows, right=(3, 4, 5, 6))]
    for name, title in COMPARED.items():
        having = [its.id for its in experiments if name in its.metrics][:MAX_LINES]
        if len(having) > 1:
            blocks.append(chart(title=title, experiments=having, metrics=[name]))
    return [Section("Side by side", blocks)]


def _status(facts: ExperimentFacts) -> str:
    diverged = facts.diverged_at
    return facts.status if diverged is None else f"{facts.status}, diverged at step {count(diverged)}"


def _last(ends: Ends | None) -> str:
    return number(ends.last) if ends else "–"


def _lowest(ends: Ends | None) -> str:
    return number(ends.lowest) if ends else "–"
