"""What is stored about an experiment, as far as reports tell of it. Whoever reads the store fills this in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Ends:
    """Where a metric begins and ends, and how far it went."""

    first_step: int
    first: float
    last_step: int
    last: float
    lowest: float
    lowest_step: int
    highest: float
    highest_step: int
    points: int


@dataclass(frozen=True)
class CheckpointFacts:
    """A checkpoint or final file."""

    name: str
    kind: str
    step: int | None = None
    size_bytes: int | None = None
    best: bool = False


@dataclass(frozen=True)
class AnalysisFacts:
    """A saved analysis with its result (`common.analysis.report`)."""

    id: str
    kind: str
    name: str | None
    created_at: datetime
    result: Mapping[str, Any]


@dataclass(frozen=True)
class ExperimentFacts:
    """One experiment."""

    id: str
    type: str
    """lm, rl, evaluation, ablation or analysis."""
    status: str
    """Of its newest job; imported without one."""
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
    """Flat, dotted names; None: none is stored."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The same names with their defaults."""
    metrics: Mapping[str, Ends] = field(default_factory=dict)
    """Of pretraining and controller, by name (`common.metrics.names`); of the values that are finite."""
    diverged: Mapping[str, int] = field(default_factory=dict)
    """Metrics that hold values which are not finite, and the first step at which they do."""
    checkpoints: Sequence[CheckpointFacts] = ()
    evaluation: Mapping[str, Any] | None = None
    """evaluation_results.json."""
    ablation: Mapping[str, Any] | None = None
    """ablation_results.json."""
    analyses: Sequence[AnalysisFacts] = ()
    """The newest first."""
    analyses_total: int = 0
    """How many are saved; `analyses` may hold fewer."""

    @property
    def diverged_at(self) -> int | None:
        """The first step at which something was not finite; None for a run that did not diverge."""
        return min(self.diverged.values(), default=None)

    @property
    def label(self) -> str:
        """Its name, or its id."""
        return self.name or self.id


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; lists are values."""
    found: dict[str, Any] = {}
    for key, item in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, Mapping):
            found |= flat(item, path)
        else:
            found[path] = item
    return found
