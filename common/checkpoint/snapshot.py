"""The state of a training at one moment, copied to host memory so that the training can continue."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor

from common.artifacts.best import BestCheckpoint

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """The measurement by which a state is the best so far."""

    metric: str
    value: float


@dataclass(frozen=True)
class TrainingSnapshot:
    """The content of one checkpoint before it is written."""

    number: int
    """Number in the folder's name: optimiser steps, or iterations of a controller training."""
    step: int
    """Number in reports to the hooks: optimiser steps, or transitions of a controller training."""
    key: Hashable
    """Identifies the state: two snapshots with equal keys hold the same state."""
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]
    meta: Mapping[str, Any]
    score: Score | None = None
    """Set if this state is the best so far."""
    proven: bool = True
    """Whether a finite loss was computed with these weights. Otherwise no older checkpoint is removed after writing."""

    def best(self, name: str) -> BestCheckpoint | None:
        """Return the entry for `best.json` if this state is the best so far, otherwise None.

        `name` is relative to the experiment's folder.
        """
        return None if self.score is None else BestCheckpoint(name, self.score.metric, self.score.value, self.step)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the total size of the tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def host_copy(value: T) -> T:
    """Return a copy of `value` whose tensors are clones in host memory. Containers are new, plain values shared."""
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
