"""Writes the last checkpoint of a training, and decides what happens when the write fails.

If the write fails and there is no older checkpoint, what follows depends on the stop request. A pause would lose the
work, so the training ends with an error; if the disk is full, the worker then returns the job to the queue, to start
again when the disk has free space. A request to stop or drain is obeyed even without a checkpoint. A training that has
taken all its steps, or was requested to complete, still tries to write its final files. In all these cases except a
pause, the event `checkpoint_failed` is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.errors import StorageError
from common.training.disk_wait import Savable, StoppedWaiting, wait_at_boundary, write_when_disk_has_space
from common.training.hooks import SavedCheckpoint, StopRequest, TrainingHooks


class FinalSavable(Savable, Protocol):
    """The state of a training, which can write a last checkpoint."""

    def write_final(self) -> SavedCheckpoint:
        """Write and return the last checkpoint, or return the newest older one if the write fails.

        Raises StorageError when there is no checkpoint at all.
        """
        ...


def save_finished_state(state: Savable, hooks: TrainingHooks) -> None:
    """Save the state of a training whose steps have ended, as soon as the disk has free space.

    Raises StoppedWaiting on a stop request during the wait, StorageError for any other error of the disk.
    """
    wait_at_boundary(hooks, state)
    write_when_disk_has_space(hooks, state.save)


def write_final_checkpoint(
    state: FinalSavable, hooks: TrainingHooks, request: StopRequest | None
) -> StopRequest | None:
    """Write the last checkpoint and return the stop request that the training then obeys.

    If `request` does not end the training early, waits until the disk has free space. A stop request that arrives
    during this wait is returned in place of `request`.
    """
    if request in (None, StopRequest.COMPLETE):
        try:
            save_finished_state(state, hooks)
        except StoppedWaiting as stop:
            request = stop.request
        except StorageError as error:
            hooks.event("checkpoint_failed", reason=error.message)
    try_final_checkpoint(state.write_final, hooks, request)
    return request


def try_final_checkpoint(
    save: Callable[[], SavedCheckpoint | None], hooks: TrainingHooks, request: StopRequest | None
) -> SavedCheckpoint | None:
    """Call `save` and return its result, or None if it failed but `request` can be obeyed without a checkpoint.

    Raises StorageError when `save` failed and `request` is a pause, because there is nothing to resume from.
    """
    try:
        return save()
    except StorageError as error:
        if request is StopRequest.PAUSE:
            raise
        hooks.event("checkpoint_failed", reason=error.message, left_with=None)
        return None
