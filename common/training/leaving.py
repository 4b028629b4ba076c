"""What a training that has to leave does when the disk takes no checkpoint any more.

A pause without any checkpoint would lose the work and is an error; where only the room is missing, the job goes back to
the queue, and begins again when there is some. A stop ends the job, a drain gives it to another worker, at the natural
end the final files may still fit: these are obeyed, with the event `checkpoint_failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.errors import StorageError
from common.training.disk_hold import Savable, StoppedWaiting, hold_at_boundary, write_when_there_is_room
from common.training.hooks import SavedCheckpoint, StopRequest, TrainingHooks


class Leaver(Savable, Protocol):
    """The part of a training's state that is needed here."""

    def leave(self) -> SavedCheckpoint:
        """The last checkpoint, or an older one where the disk refuses. StorageError without any."""
        ...


def save_at_the_end(state: Savable, hooks: TrainingHooks) -> None:
    """Training has ended: its state on disk, as soon as there is room. StoppedWaiting, StorageError."""
    hold_at_boundary(hooks, state)
    write_when_there_is_room(hooks, state.save)


def leave(state: Leaver, hooks: TrainingHooks, request: StopRequest | None) -> StopRequest | None:
    """Write the last checkpoint; where nobody wants to leave, when there is room. The wish that counts in the end."""
    if request in (None, StopRequest.COMPLETE):
        try:
            save_at_the_end(state, hooks)
        except StoppedWaiting as stop:
            request = stop.request
        except StorageError as error:
            hooks.event("checkpoint_failed", reason=error.message)
    leave_with_checkpoint(state.leave, hooks, request)
    return request


def leave_with_checkpoint(
    save: Callable[[], SavedCheckpoint | None], hooks: TrainingHooks, request: StopRequest | None
) -> SavedCheckpoint | None:
    """Call `save`; None when it had no checkpoint to offer and `request` is obeyed all the same."""
    try:
        return save()
    except StorageError as error:
        if request is StopRequest.PAUSE:
            raise
        hooks.event("checkpoint_failed", reason=error.message, left_with=None)
        return None
