"""How a training ends whose numbers are no longer finite: nothing more is saved, and its user is told where to go on.

Gradients of the weights of step S are not finite, or their validation loss is not: a checkpoint of S would lead to the
same place again. So it is withdrawn (its folder gets another name), unless it is the best so far, and the newest sound
one before S is what the error advises to resume from. Leaves out: noticing it (`common.errors.require_finite`).
"""

from __future__ import annotations

from common.checkpoint import CheckpointManager
from common.checkpoint.manager import CheckpointInfo, verify
from common.errors import CheckpointError, DivergedError
from common.training.hooks import TrainingHooks


def withdraw_and_explain(
    error: DivergedError,
    manager: CheckpointManager,
    hooks: TrainingHooks,
    *,
    number: int,
    begun_at: int | None,
    when: str,
    change: str,
) -> DivergedError:
    """The error to raise instead of `error`, which says where to resume and what to change.

    `number` is that of the checkpoints that hold the state which diverged; `begun_at` the number that the training
    began from when another experiment's checkpoint was given; `when` a clause such as "at update 12"; `change` what to
    lower. Call it when no thread writes checkpoints any more.
    """
    hooks.phase("verifying checkpoints")
    withdrawn = manager.withdraw(number)
    newest = _newest_before(manager, number)
    hooks.checkpoints_withdrawn(withdrawn, newest)
    reference = None if newest is None else f"{manager.directory.parent.name}/{manager.directory.name}/{newest.name}"
    if reference is not None:
        advice = f"resume from {reference}, the newest checkpoint before it"
    elif begun_at is not None and begun_at < number:
        advice = "begin again from the checkpoint that this training began from, because it has written none since"
    elif begun_at is not None:
        advice = "begin from an earlier checkpoint: the one that this training began from leads to this at once"
    else:
        advice = "begin again, because there is no checkpoint before it"
    hooks.event(
        "diverged", quantity=error.quantity, value=str(error.value), checkpoint=None if newest is None else newest.name
    )
    change = change[0].upper() + change[1:]
    message = f"Training diverged {when}: {error.message}. Nothing of it was saved. {change}, and {advice}."
    return DivergedError(message, quantity=error.quantity, value=error.value)


def _newest_before(manager: CheckpointManager, number: int) -> CheckpointInfo | None:
    for info in reversed(manager.list()):
        if manager.number_of(info) < number:
            try:
                verify(info.path)
            except CheckpointError:
                continue
            return info
    return None
