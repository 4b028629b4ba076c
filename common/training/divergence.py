"""How a training ends whose numbers are no longer finite: nothing more is saved, and its user is told where to go on.

Gradients of the weights of step S are not finite, or their validation loss is not: a checkpoint of S would lead to the
same place again. So it is withdrawn (its folder gets another name), unless it is the best so far, and the newest sound
one before S is what the error advises to resume from. Leaves out: noticing it (`common.errors.require_finite`).
"""

from __future__ import annotations

from pathlib import Path

from common.checkpoint import CheckpointManager
from common.errors import DivergedError
from common.training.hooks import TrainingHooks


def withdraw_and_explain(
    error: DivergedError,
    manager: CheckpointManager,
    hooks: TrainingHooks,
    *,
    number: int,
    begun_at: int | None = None,
    begun_from: Path | None = None,
    when: str,
    change: str,
) -> DivergedError:
    """The error to raise instead of `error`, which says where to resume and what to change.

    `number` is that of the checkpoints that hold the state which diverged; `begun_at` the number that the training
    began at when it was given the checkpoint `begun_from` of another experiment; `when` a clause such as "at update
    12"; `change` what to lower. Call it when no thread writes checkpoints any more.
    """
    hooks.phase("verifying checkpoints")
    withdrawn = manager.withdraw(number)
    newest = manager.latest(before=number)
    hooks.checkpoints_withdrawn(withdrawn, newest)
    reference = None if newest is None else f"{manager.directory.parent.name}/{manager.directory.name}/{newest.name}"
    if reference is not None:
        advice = f"resume from {reference}, the newest checkpoint before it"
    elif begun_from is not None and begun_at is not None:
        given = begun_from.name if begun_from.is_file() else "/".join(begun_from.parts[-3:])
        if begun_at < number:
            advice = f"go on from {given} again, because this training has written no checkpoint since"
        else:
            advice = f"begin from an earlier checkpoint than {given}, which leads to this at once"
    else:
        advice = "begin again, because there is no checkpoint before it"
    hooks.event(
        "diverged", quantity=error.quantity, value=str(error.value), checkpoint=None if newest is None else newest.name
    )
    change = change[0].upper() + change[1:]
    message = f"Training diverged {when}: {error.message}. Nothing of it was saved. {change}, and {advice}."
    return DivergedError(message, quantity=error.quantity, value=error.value)
