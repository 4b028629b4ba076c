"""The lock and the marked state that make a training savable at any moment, from any thread.

A training marks a moment at which it could be resumed; what it marks are copies. Weights change only under the lock, in
a block that ends with a new mark. So a checkpoint is always the marked state, even if another thread writes it while
the training computes. Leaves out: what belongs to the state and when it is marked (`common.training.training_state`,
`common.rl.state`), files and the thread that writes them (`common.checkpoint`).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from common.checkpoint import CheckpointInfo, CheckpointWriter, Score, Snapshot, host_copy, tensor_bytes


class Resumable(ABC):
    """The state of a training: it is marked between two changes of the weights, and saved as it was marked.

    A subclass ends its constructor with `self.mark()`, changes the weights while it holds `_lock`, and counts its
    checkpoints by the counter that `NUMBER` names.
    """

    NUMBER: ClassVar[str]

    def __init__(self, trained: nn.Module, optimizer: torch.optim.Optimizer, writer: CheckpointWriter) -> None:
        self.optimizer = optimizer
        self.writer = writer
        self._trained = trained
        self._lock = threading.Lock()
        self._leaving = False
        """Nothing is written any more, except what `leave` writes."""
        self._marked: dict[str, Any] = {}

    @abstractmethod
    def _copy(self) -> dict[str, Any]:
        """Copy everything besides weights and optimiser; `counters` holds `finished` and the counter `NUMBER`."""

    @abstractmethod
    def _describe(
        self, weights: dict[str, torch.Tensor], optimizer: dict[str, Any], score: Score | None, *, copied: bool
    ) -> Snapshot:
        """Make the checkpoint of the marked state out of its parts."""

    @property
    def checkpoint_bytes(self) -> int:
        """Return the expected size of the next checkpoint in bytes.

        It is the size of the newest one; before the first, the size of the weights and Adam's two moments.
        """
        newest = self.writer.newest
        return newest.size_bytes if newest is not None else 3 * tensor_bytes(self._trained.state_dict())

    def mark(self) -> None:
        """Declare this moment, between two changes of the weights, to be the point to resume from."""
        self._marked = self._copy()

    def save(self) -> CheckpointInfo:
        """Write the marked state to disk and return the checkpoint. Raises StorageError when the disk refuses."""
        with self._lock:
            return self.writer.write(self._key(), self._capture)

    def leave(self) -> CheckpointInfo:
        """Like `save`, and no other thread will write one; an older checkpoint has to do when the disk refuses.

        Raises StorageError when there is none.
        """
        with self._lock:
            self._leaving = True
            return self.writer.leave(self._key(), self._capture)

    def save_and_hold(self) -> CheckpointInfo | None:
        """From another thread: `leave`, and let training go no further; the process must end.

        None when training is on its own way out and has written, or is writing, its last checkpoint.
        """
        self._lock.acquire()
        if self._leaving:
            self._lock.release()
            return None
        return self.writer.leave(self._key(), self._capture)

    def abandon(self) -> None:
        """From here on nothing of this training is written, by no thread: it has diverged."""
        with self._lock:
            self._leaving = True

    def _save_in_background(self, score: Score | None) -> None:
        """Copy the marked state to host memory and have it written, unless that is done or under way.

        A state with a score is the best so far, and is written in any case.
        """
        with self._lock:
            if not self._leaving and (score is not None or not self.writer.has(self._key())):
                self.writer.submit(self._capture(score, copied=True))

    def _key(self) -> tuple[int, bool]:
        counters = self._marked["counters"]
        return counters[self.NUMBER], counters["finished"]

    def _capture(self, score: Score | None = None, *, copied: bool = False) -> Snapshot:
        """The marked state; `copied` makes it independent of what training does next."""
        weights, optimizer = self._trained.state_dict(), self.optimizer.state_dict()
        if copied:
            weights, optimizer = host_copy(weights), host_copy(optimizer)
        return self._describe(weights, optimizer, score, copied=copied)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is no longer as it was at the checkpoint, so that the continuation will not be bit-exact."""
    return [f"{name} was {before.get(name)}, is {value}" for name, value in now.items() if before.get(name) != value]
