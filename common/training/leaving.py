"""What a training that has to leave does when the disk takes no checkpoint any more.

A pause without any checkpoint would lose the work and is an error. A stop ends the job, a drain gives it to another
worker, at the natural end the final files may still fit: these are obeyed, with the event `checkpoint_failed`.
"""

from __future__ import annotations

from collections.abc import Callable

from common.errors import StorageError
from common.training.hooks import SavedCheckpoint, StopRequest, TrainingHooks


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
