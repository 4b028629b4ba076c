"""The state of a training at one step, copied to host memory so that the training can continue during the write."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor

from common.artifacts.best import BestCheckpoint
from common.data.vocabulary import Vocabulary

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """The metric in which a training state is the best so far, and the value of this metric."""

    metric: str
    value: float


@dataclass(frozen=True)
class TrainingSnapshot:
    """The content of one checkpoint before it is written."""

    number: int
    """Number in the folder's name: the optimiser step, or the iteration of a controller training."""
    step: int
    """The step that the hooks receive: the optimiser step, or the transitions of a controller training so far."""
    key: Hashable
    """Identifies the state: two snapshots with equal keys hold the same state."""
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]
    meta: Mapping[str, Any]
    score: Score | None = None
    """The measurement that makes this state the best so far; None if it is not the best."""
    proven: bool = True
    """Whether a finite loss was computed with these weights. If not, older checkpoints are kept after the write."""
    vocabulary: Vocabulary | None = None
    """The language model's vocabulary; None for a controller, which has none of its own."""

    def best(self, name: str) -> BestCheckpoint | None:
        """Return the entry for `best.json` if this state is the best so far, otherwise None.

        `name` is relative to the experiment's folder.
        """
        return None if self.score is None else BestCheckpoint(name, self.score.metric, self.score.value, self.step)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the total size of the tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def host_copy(value: T) -> T:
    """Return a copy of `value` with its tensors in host memory. Containers are copied, plain values are shared."""
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
