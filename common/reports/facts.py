"""The data about an experiment from which reports are generated. The caller reads the data from database and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class MetricSummary:
    """The first, last, lowest and highest value of a metric, with their steps."""

    first_step: int
    first: float
    last_step: int
    last: float
    lowest: float
    lowest_step: int
    highest: float
    highest_step: int
    points: int
    """Number of recorded values."""


@dataclass(frozen=True)
class CheckpointFacts:
    """A checkpoint, or the file of a final model."""

    name: str
    kind: str
    step: int | None = None
    size_bytes: int | None = None
    best: bool = False


@dataclass(frozen=True)
class AnalysisFacts:
    """A saved analysis with its result (`common.analysis.result`)."""

    id: str
    kind: str
    name: str | None
    created_at: datetime
    result: Mapping[str, Any]


@dataclass(frozen=True)
class ExperimentFacts:
    """The data of one experiment."""

    id: str
    type: str
    """lm, rl, evaluation, ablation or analysis."""
    status: str
    """Status of the newest job, or `imported` if there is none."""
    created_at: datetime
    name: str | None = None
    tags: Sequence[str] = ()
    notes: str | None = None
    finished_at: datetime | None = None
    source_experiment_id: str | None = None
    source_checkpoint: str | None = None
    step: int | None = None
    total_steps: int | None = None
    attempts: int = 0
    error: str | None = None
    config: Mapping[str, Any] | None = None
    """Maps the name of each setting, such as `training.max_steps`, to its value; None if no configuration is stored."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Maps the name of each setting to its default value."""
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)
    """Maps the name of each metric (`common.metrics.names`) to a summary of its finite values."""
    diverged: Mapping[str, int] = field(default_factory=dict)
    """Maps the name of each metric that was ever NaN or infinite to the first step at which it was."""
    checkpoints: Sequence[CheckpointFacts] = ()
    evaluation: Mapping[str, Any] | None = None
    """Contents of evaluation_results.json."""
    ablation: Mapping[str, Any] | None = None
    """Contents of ablation_results.json."""
    analyses: Sequence[AnalysisFacts] = ()
    """The newest saved analyses, newest first. The experiment may have more (`analyses_total`)."""
    analyses_total: int = 0
    """Number of all saved analyses of the experiment."""

    @property
    def diverged_at(self) -> int | None:
        """Return the first step with a value that is not finite; None if the training did not diverge."""
        return min(self.diverged.values(), default=None)

    @property
    def label(self) -> str:
        """Return the experiment's name, or its id if it has no name."""
        return self.name or self.id


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as a flat one: `{"a": {"b": 1}}` becomes `{"a.b": 1}`; lists are not flattened."""
    found: dict[str, Any] = {}
    for key, item in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, Mapping):
            found |= flat(item, path)
        else:
            found[path] = item
    return found
