"""The interface between training code and the program that runs it, such as a worker or the command line.

`TrainingHooks` is all that pretraining, controller training, evaluation and ablation know about jobs. They call its
methods to report metrics, progress, phases and checkpoints, and to check for stop requests. In the child process of a
worker, the methods send messages over a socket (`services.trainer`); on the command line, they print to the terminal
(`common.training.local_hooks`). This module uses neither torch nor databases nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from common.disk import Shortage


class StopRequest(StrEnum):
    """A request to end a running training, checked at least once per micro-batch or rollout step."""

    PAUSE = "pause"
    """Write a checkpoint and end; the job resumes later."""
    COMPLETE = "complete"
    """Stop the steps of training now, then evaluate and write the final model."""
    STOP = "stop"
    """Write a checkpoint and end; the job is cancelled."""
    DRAIN = "drain"
    """Write a checkpoint and end, because the worker shuts down; another worker resumes the job."""


class Outcome(StrEnum):
    """How a training ends if it does not fail: completed, paused, stopped or drained."""

    COMPLETED = "completed"
    PAUSED = "paused"
    STOPPED = "stopped"
    DRAINED = "drained"


_OUTCOMES = {
    StopRequest.PAUSE: Outcome.PAUSED,
    StopRequest.COMPLETE: Outcome.COMPLETED,
    StopRequest.STOP: Outcome.STOPPED,
    StopRequest.DRAIN: Outcome.DRAINED,
}


def outcome_of(request: StopRequest) -> Outcome:
    """Return how a training ends that obeys `request`: completed, paused, stopped or drained."""
    return _OUTCOMES[request]


class SavedCheckpoint(Protocol):
    """The part of `common.checkpoint.CheckpointInfo` that the hooks need."""

    @property
    def name(self) -> str:
        """Return the name of the folder, for example `step-000000123`."""
        ...

    @property
    def step(self) -> int:
        """Return the number of finished optimiser updates (for a controller: transitions) at this checkpoint."""
        ...

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the weights file."""
        ...

    @property
    def size_bytes(self) -> int:
        """Return the size on disk in bytes."""
        ...


class TrainingHooks(Protocol):
    """The methods that training code calls; the program that runs the training implements them.

    No method may raise because of a failed connection. Only `before_checkpoint` and `wait_while_suspended` may wait;
    the methods that check a disk take as long as the check. `event` and the methods whose names begin with `checkpoint`
    are also called from the thread that writes checkpoints.
    """

    def phase(self, name: str) -> None:
        """Report the start of a phase: "loading data", "compile", "training", "evaluation", "checkpoint", …"""

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Report one point of the metrics of `kind` ("metrics" or "rl-metrics"). Never blocks."""

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        """Report progress at every micro-batch; `step` counts finished optimiser updates (controller: transitions).

        `time_share` is the used share of the time limit, 0 without a limit. The training ends when either the steps or
        the time are used up.
        """

    def requested_stop(self) -> StopRequest | None:
        """Return the current stop request, or None."""

    def before_checkpoint(self) -> None:
        """Write the metrics so far to disk, then block as `wait_while_suspended` does.

        Training calls this before a checkpoint becomes visible. Raises StorageError when the metrics cannot be written;
        the checkpoint is then not published.
        """

    def checkpoint_saved(self, info: SavedCheckpoint) -> None:
        """Report a checkpoint that is complete on disk. Also called for the checkpoint from which training resumes."""

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        """Report the names of all checkpoints on disk, after older ones were removed."""

    def checkpoints_withdrawn(self, names: Sequence[str], newest: SavedCheckpoint | None) -> None:
        """Report that training diverged and the checkpoints `names` were withdrawn; `newest` can be resumed from."""

    def artifact_saved(self, name: str, kind: str) -> None:
        """Report a file that is complete on disk; `name` is relative to the folder of the experiment.

        Kinds: "model", "policy", "evaluation", "headroom", "ablation", "analysis".
        """

    def event(self, name: str, **details: Any) -> None:
        """Report an event to be stored with the job: "corpus", "resumed", "resume_inexact", "checkpoint_skipped", …"""

    def disk_shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        """Return a shortage if the free space is below the reserve or too small for `next_write_bytes`, otherwise None.

        Checks the disk of the experiments and, with `data`, also the disk of the data folder. A result of None is
        cached for one second.
        """

    def disk_refused(self, reason: str, *, data: bool = False, next_write_bytes: int = 0) -> Shortage:
        """Return a shortage for a write that failed with `reason` on a full disk, even if the disk shows free space."""

    def waiting_for_disk(self, shortage: Shortage | None) -> None:
        """Report that the training waits for disk space. Called every few seconds during the phase `waiting_for_disk`.

        None reports that the wait is over and the previous phase continues.
        """

    def offer_checkpoint(self, save: Callable[[], SavedCheckpoint | None] | None) -> None:
        """Offer a function that saves the last finished step, for a stop that cannot wait for a micro-batch to end.

        The program that runs the training may call `save` once, from any thread, and must end the process afterwards,
        because training does not continue. `save` reports the checkpoint and returns it. It returns None if the
        training is already ending, and raises StorageError when there is no checkpoint at all.
        `offer_checkpoint(None)` withdraws the offer.
        """

    def wait_while_suspended(self) -> None:
        """Block while it is uncertain whether the training may run, because the lease could not be renewed."""


class NullHooks:
    """Hooks that ignore all reports and never request a stop."""

    def phase(self, name: str) -> None:
        """Do nothing."""

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        """Do nothing."""

    def requested_stop(self) -> StopRequest | None:
        """Return None."""
        return None

    def before_checkpoint(self) -> None:
        """Return at once."""

    def checkpoint_saved(self, info: SavedCheckpoint) -> None:
        """Do nothing."""

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        """Do nothing."""

    def checkpoints_withdrawn(self, names: Sequence[str], newest: SavedCheckpoint | None) -> None:
        """Do nothing."""

    def artifact_saved(self, name: str, kind: str) -> None:
        """Do nothing."""

    def event(self, name: str, **details: Any) -> None:
        """Do nothing."""

    def disk_shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        """Return None."""
        return None

    def disk_refused(self, reason: str, *, data: bool = False, next_write_bytes: int = 0) -> Shortage:
        """Return a shortage with 0 free bytes."""
        return Shortage("data" if data else "experiments", 0, next_write_bytes, reason=reason)

    def waiting_for_disk(self, shortage: Shortage | None) -> None:
        """Do nothing."""

    def offer_checkpoint(self, save: Callable[[], SavedCheckpoint | None] | None) -> None:
        """Do nothing."""

    def wait_while_suspended(self) -> None:
        """Return at once."""
