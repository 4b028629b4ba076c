"""The state of a training at one moment, copied to host memory so that the training can go on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor

from common.artifacts.best import Best

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """A measurement that made this state the best so far."""

    metric: str
    value: float


@dataclass(frozen=True)
class TrainingSnapshot:
    """What one checkpoint will hold."""

    number: int
    """Of the folder: optimiser steps, a controller's iterations."""
    step: int
    """What the surroundings count: optimiser steps, a controller's transitions."""
    key: Hashable
    """Two snapshots of one key hold the same state."""
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]
    meta: Mapping[str, Any]
    score: Score | None = None
    """Set when this is the best so far."""
    proven: bool = True
    """Whether a finite loss was computed with these weights. Until then older checkpoints are not removed for it."""

    def best(self, name: str) -> Best | None:
        """The entry for `best.json` if this is the best, `name` relative to the experiment's folder."""
        return None if self.score is None else Best(name, self.score.metric, self.score.value, self.step)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the total size of the tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def host_copy(value: T) -> T:
    """`value` with every tensor in it cloned into host memory; containers are new, plain values are shared."""
    if isinstance(value, Tensor):
        detached = value.detach()
        return cast("T", detached.clone() if detached.device.type == "cpu" else detached.to("cpu"))
    if isinstance(value, Mapping):
        return cast("T", {key: host_copy(item) for key, item in value.items()})
    if isinstance(value, list):
        return cast("T", [host_copy(item) for item in value])
    if isinstance(value, tuple):
        return cast("T", tuple(host_copy(item) for item in value))
    return value
