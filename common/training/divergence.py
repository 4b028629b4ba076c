"""Ends a training whose loss, gradients or weights are not finite, with an error that names a checkpoint to resume.

If the loss or the gradients computed with the weights of step S are not finite, a training resumed from a checkpoint of
S would diverge again. Therefore this checkpoint is withdrawn: its folder is renamed, unless it is the best checkpoint
so far. The error names the newest intact checkpoint before S. `common.errors.require_finite` checks the values.
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
    first_number: int | None = None,
    started_from: Path | None = None,
    when: str,
    change: str,
) -> DivergedError:
    """Withdraw the checkpoints of the diverged state and return the error to raise instead of `error`.

    `number` is the number of the checkpoints that hold the diverged state. If the training started from a checkpoint of
    another experiment, `started_from` is the path of that checkpoint and `first_number` the number at which this
    training started. `when` is a phrase such as "at update 12", and `change` advises which setting to change. No thread
    may write checkpoints during the call.
    """
    hooks.phase("verifying checkpoints")
    withdrawn = manager.withdraw(number)
    newest = manager.latest(before=number)
    hooks.checkpoints_withdrawn(withdrawn, newest)
    reference = None if newest is None else f"{manager.directory.parent.name}/{manager.directory.name}/{newest.name}"
    if reference is not None:
        advice = f"resume from {reference}, the newest checkpoint before the divergence"
    elif started_from is not None and first_number is not None:
        initial = started_from.name if started_from.is_file() else "/".join(started_from.parts[-3:])
        if first_number < number:
            advice = f"start from {initial} again, because this training has written no checkpoint since then"
        else:
            advice = f"start from an earlier checkpoint than {initial}, because this one diverges at once"
    else:
        advice = "start again from the beginning, because there is no earlier checkpoint"
    hooks.event(
        "diverged", quantity=error.quantity, value=str(error.value), checkpoint=None if newest is None else newest.name
    )
    change = change[0].upper() + change[1:]
    message = f"Training diverged {when}: {error.message}. The diverged state was not saved. {change}, and {advice}."
    return DivergedError(message, quantity=error.quantity, value=error.value)
