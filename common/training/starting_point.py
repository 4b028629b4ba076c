"""Where a pretraining begins: its own newest sound checkpoint, another experiment's, given weights, or new weights."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from common.checkpoint import CheckpointInfo, CheckpointManager, load_model
from common.checkpoint.manager import MANIFEST, read_info, verify
from common.config.lm import ModelConfig
from common.errors import CheckpointError, ConfigError
from common.training.hooks import TrainingHooks
from common.training.training_state import TrainingState


def find_start(
    state: TrainingState,
    manager: CheckpointManager,
    hooks: TrainingHooks,
    *,
    resume: bool,
    initial_checkpoint: Path | None,
) -> None:
    """Fill `state`, and say as events what was skipped, what was continued and whether the continuation is exact.

    Raises CheckpointError or ConfigError when `initial_checkpoint` is damaged or has another shape than the model.
    """
    newest = newest_sound(manager, hooks) if resume else None
    if newest is not None:
        _continue(state, newest, hooks, own=True)
        # Again: the process that wrote it may have died before it could tell.
        hooks.checkpoint_saved(newest)
        # Nothing is removed for it yet: whether training can go on from it shows at its next update.
        hooks.checkpoints_kept(manager.names())
    elif initial_checkpoint is not None and (initial_checkpoint / MANIFEST).is_file():
        verify(initial_checkpoint)
        _continue(state, read_info(initial_checkpoint), hooks, own=False)
    elif initial_checkpoint is not None:
        _take_weights(state, initial_checkpoint)
        hooks.event("initial_weights", file=initial_checkpoint.name)


def has_checkpoints(directory: Path) -> bool:
    """Whether the experiment in `directory` has something to resume from, as far as names tell."""
    return any((directory / "checkpoints").glob(f"[!.]*/{MANIFEST}"))


def newest_sound(manager: CheckpointManager, hooks: TrainingHooks) -> CheckpointInfo | None:
    """The newest checkpoint that verifies; damaged newer ones are set aside, each with an event."""
    hooks.phase("verifying checkpoints")
    hooks.wait_while_suspended()
    newest = manager.latest()
    for skipped in manager.skipped:
        hooks.event("checkpoint_skipped", checkpoint=skipped.name, reason=skipped.reason)
        manager.set_aside(skipped)
    return newest


def _continue(state: TrainingState, info: CheckpointInfo, hooks: TrainingHooks, *, own: bool) -> None:
    if info.meta.get("kind") != "lm":
        raise CheckpointError(f"{info.path}: a checkpoint of kind '{info.meta.get('kind')}', not of a language model")
    _same_shape(state, info.meta.get("model", {}), info.path)
    reasons = state.restore(info, own=own)
    hooks.event("resumed", checkpoint=info.name, step=info.step)
    if reasons:
        hooks.event("resume_inexact", checkpoint=info.name, reasons=reasons)


def _take_weights(state: TrainingState, path: Path) -> None:
    given = load_model(path)
    _same_shape(state, given.config.model_dump(), path)
    state.model.load_state_dict(given.state_dict())
    state.model.gates_trained = given.gates_trained


def _same_shape(state: TrainingState, other: dict[str, object], path: Path) -> None:
    try:
        theirs = ModelConfig.model_validate(other).shape()
    except ValidationError as error:
        raise CheckpointError(f"{path}: its manifest describes no model: {error.errors()[0]['msg']}") from error
    mine = state.model.config.shape()
    wrong = [f"{name} {theirs[name]} instead of {mine[name]}" for name in mine if theirs[name] != mine[name]]
    if wrong:
        raise ConfigError(f"{path}: its model has {', '.join(wrong)}; set model.* to the checkpoint's values")
