"""Finds the state from which a pretraining starts.

The training starts from the newest intact checkpoint of its own experiment, a checkpoint of another experiment, a file
of weights, or new weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.checkpoint import CheckpointInfo, CheckpointManager, load_model
from common.checkpoint.manager import MANIFEST, read_info, verify
from common.config.lm import ModelConfig
from common.errors import CheckpointError, ConfigError
from common.training.hooks import TrainingHooks
from common.training.training_state import TrainingState


@dataclass(frozen=True)
class StartingPoint:
    """Where a pretraining starts. Without a checkpoint and weights, it starts with new weights."""

    checkpoint: CheckpointInfo | None = None
    own: bool = True
    """Whether the checkpoint is of the same experiment."""
    weights: Path | None = None
    """A file of weights."""

    def compute(self) -> dict[str, Any] | None:
        """Return the stored result of `ComputeConfig.stored`, or None without a checkpoint.

        Checkpoints of older versions have none; on a CPU, these versions used float32 without torch.compile.
        """
        if self.checkpoint is None:
            return None
        older = {"device": "cpu", "precision": "float32", "compiled": False}
        return dict(self.checkpoint.meta.get("compute") or older)


def find_start(
    manager: CheckpointManager, hooks: TrainingHooks, *, resume: bool, initial_checkpoint: Path | None
) -> StartingPoint:
    """Return the starting point of the training, whose files are verified. Report skipped checkpoints as events.

    Raises CheckpointError if `initial_checkpoint` is damaged.
    """
    newest = newest_intact_checkpoint(manager, hooks) if resume else None
    if newest is not None:
        return StartingPoint(newest)
    if initial_checkpoint is None or not (initial_checkpoint / MANIFEST).is_file():
        return StartingPoint(weights=initial_checkpoint)
    verify(initial_checkpoint)
    return StartingPoint(read_info(initial_checkpoint), own=False)


def restore_start(state: TrainingState, start: StartingPoint, manager: CheckpointManager, hooks: TrainingHooks) -> None:
    """Restore `state` from the starting point, and report an inexact resume as an event.

    Raises CheckpointError or ConfigError if the shape of the checkpoint's model differs from the model's.
    """
    if start.checkpoint is not None:
        _resume(state, start.checkpoint, hooks, own=start.own)
        if start.own:
            # The checkpoint is reported again, because the process that wrote it may have died before reporting it.
            hooks.checkpoint_saved(start.checkpoint)
            # No older checkpoint is removed yet, because only the next update shows whether training can continue from
            # the newest one.
            hooks.checkpoints_kept(manager.names())
    elif start.weights is not None:
        _load_weights(state, start.weights)
        hooks.event("initial_weights", file=start.weights.name)


def has_checkpoints(directory: Path) -> bool:
    """Return whether the experiment in `directory` has a checkpoint folder; its content is not verified."""
    return any((directory / "checkpoints").glob(f"[!.]*/{MANIFEST}"))


def newest_intact_checkpoint(manager: CheckpointManager, hooks: TrainingHooks) -> CheckpointInfo | None:
    """Return the newest intact checkpoint, or None. Rename newer damaged checkpoints and report each as an event."""
    hooks.phase("verifying checkpoints")
    hooks.wait_while_suspended()
    newest = manager.latest()
    for skipped in manager.skipped:
        hooks.event("checkpoint_skipped", checkpoint=skipped.name, reason=skipped.reason)
        manager.rename_damaged(skipped)
    return newest


def _resume(state: TrainingState, info: CheckpointInfo, hooks: TrainingHooks, *, own: bool) -> None:
    if info.meta.get("kind") != "lm":
        raise CheckpointError(
            f"{info.path}: expected a checkpoint of a language model, found kind '{info.meta.get('kind')}'"
        )
    _require_same_shape(state, info.meta.get("model", {}), info.path)
    reasons = state.restore(info, own=own)
    hooks.event("resumed", checkpoint=info.name, step=info.step)
    if reasons:
        hooks.event("resume_inexact", checkpoint=info.name, reasons=reasons)


def _load_weights(state: TrainingState, path: Path) -> None:
    initial = load_model(path)
    _require_same_shape(state, initial.config.model_dump(), path)
    state.model.load_state_dict(initial.state_dict())
    state.model.gates_trained = initial.gates_trained


def _require_same_shape(state: TrainingState, other: dict[str, object], path: Path) -> None:
    try:
        found = ModelConfig.model_validate(other).shape()
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: its manifest does not describe a valid model: {error.errors()[0]['msg']}"
        ) from error
    expected = state.model.config.shape()
    wrong = [f"{name} {found[name]} instead of {size}" for name, size in expected.items() if found[name] != size]
    if wrong:
        raise ConfigError(f"{path}: its model has {', '.join(wrong)}; set model.* to the checkpoint's values")
