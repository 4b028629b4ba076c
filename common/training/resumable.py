"""Makes it possible to save the state of a training at any moment, from any thread.

At each point from which a training can be resumed, the training calls `mark`, which copies the state except weights and
optimiser. Weights change only under the lock, in a block that ends with another call of `mark`. So a checkpoint always
holds the marked state, even if another thread writes it while the training computes. The subclasses in
`common.training.training_state` and `common.rl.state` define the contents of the state and call `mark`.
`common.checkpoint` writes the files, in a separate thread.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from common.checkpoint import CheckpointInfo, CheckpointWriter, Score, TrainingSnapshot, host_copy, tensor_bytes


class Resumable(ABC):
    """The state of a training. It is marked between two changes of the weights, and saved as it was when marked.

    A subclass calls `self.mark()` at the end of its constructor, and holds `_lock` while it changes the weights.
    """

    NUMBER: ClassVar[str]
    """Name of the counter that identifies a checkpoint: "step" or "iteration"."""

    def __init__(self, trained: nn.Module, optimizer: torch.optim.Optimizer, writer: CheckpointWriter) -> None:
        self.optimizer = optimizer
        self.writer = writer
        self._trained = trained
        self._lock = threading.Lock()
        self._leaving = False
        """Whether the training has ended or is ending. If so, no thread may begin another checkpoint."""
        self._marked: dict[str, Any] = {}

    @abstractmethod
    def _copy(self) -> dict[str, Any]:
        """Return a copy of the state without weights and optimiser.

        Its `counters` have the keys "finished" and `NUMBER`.
        """

    @abstractmethod
    def _describe(
        self, weights: dict[str, torch.Tensor], optimizer: dict[str, Any], score: Score | None, *, copied: bool
    ) -> TrainingSnapshot:
        """Return the marked state with these weights and optimiser state; `copied` means that both are host copies."""

    @property
    def checkpoint_bytes(self) -> int:
        """Return the expected size of the next checkpoint in bytes.

        It is the size of the newest checkpoint or, before the first one, of `checkpoint_copies` times the weights.
        """
        newest = self.writer.newest
        if newest is not None:
            return newest.size_bytes
        return self.checkpoint_copies * tensor_bytes(self._trained.state_dict())

    @property
    def checkpoint_copies(self) -> int:
        """Return how many times the size of the weights a checkpoint has: weights and Adam's two moments."""
        return 3

    def mark(self) -> None:
        """Copy the current state as the point to resume from; call it only between two changes of the weights."""
        self._marked = self._copy()

    def save(self) -> CheckpointInfo:
        """Write the marked state to disk and return the checkpoint. Raises StorageError when the write fails."""
        with self._lock:
            return self.writer.write(self._key(), self._capture)

    def write_final(self) -> CheckpointInfo:
        """Write the last checkpoint and return it; no thread writes another one afterwards.

        If the write fails, return the newest older checkpoint. Raises StorageError when there is none.
        """
        with self._lock:
            self._leaving = True
            return self.writer.write_final(self._key(), self._capture)

    def write_final_and_block(self) -> CheckpointInfo | None:
        """Write the last checkpoint from another thread than the training's, and keep the lock.

        Training therefore cannot continue, and the process must end afterwards. If the write fails, the function
        returns or raises the same as `write_final`. It returns None when the training is ending and has written, or is
        writing, its last checkpoint.
        """
        self._lock.acquire()
        if self._leaving:
            self._lock.release()
            return None
        return self.writer.write_final(self._key(), self._capture)

    def forbid_checkpoints(self) -> None:
        """Prevent any further checkpoint of this training, from any thread, because the training has diverged."""
        with self._lock:
            self._leaving = True

    def _save_in_background(self, score: Score | None) -> None:
        """Copy the marked state to host memory and submit it to the writer, unless it is already written or submitted.

        A state with a score is the best so far and is always submitted.
        """
        with self._lock:
            if not self._leaving and (score is not None or not self.writer.has_state(self._key())):
                self.writer.submit(self._capture(score, copied=True))

    def _key(self) -> tuple[int, bool]:
        counters = self._marked["counters"]
        return counters[self.NUMBER], counters["finished"]

    def _capture(self, score: Score | None = None, *, copied: bool = False) -> TrainingSnapshot:
        """Return the marked state. With `copied`, the result does not change when the training continues."""
        weights, optimizer = self._trained.state_dict(), self.optimizer.state_dict()
        if copied:
            weights, optimizer = host_copy(weights), host_copy(optimizer)
        return self._describe(weights, optimizer, score, copied=copied)


def environment_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences between two environments (torch version, device, corpus and others) as texts.

    Each difference prevents a bit-exact resume.
    """
    return [f"{name} was {before.get(name)}, is {value}" for name, value in now.items() if before.get(name) != value]
