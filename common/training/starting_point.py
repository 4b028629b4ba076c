"""Finds the state from which a pretraining starts.

The training starts from the newest intact checkpoint of its own experiment, a checkpoint of another experiment, a file
of weights, or new weights.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from common.checkpoint import CheckpointInfo, CheckpointManager, load_model, load_vocabulary
from common.checkpoint.manager import MANIFEST, read_info, verify
from common.checkpoint.vocabulary_file import vocabulary_of
from common.config.lm import ModelConfig
from common.data import VOCABULARY_FILE, Vocabulary, read_vocabulary
from common.errors import CheckpointError, ConfigError
from common.training.hooks import TrainingHooks
from common.training.training_state import TrainingState


def restore_start(
    state: TrainingState,
    manager: CheckpointManager,
    hooks: TrainingHooks,
    *,
    resume: bool,
    initial_checkpoint: Path | None,
) -> None:
    """Restore `state` from the starting point of the training.

    Report skipped checkpoints and inexact resumes as events. Raises CheckpointError or ConfigError if
    `initial_checkpoint` is damaged or its shape differs from the model's.
    """
    newest = newest_intact_checkpoint(manager, hooks) if resume else None
    if newest is not None:
        _resume(state, newest, hooks, own=True)
        # The checkpoint is reported again, because the process that wrote it may have died before reporting it.
        hooks.checkpoint_saved(newest)
        # No older checkpoint is removed yet, because only the next update shows whether training can continue from the
        # newest one.
        hooks.checkpoints_kept(manager.names())
    elif initial_checkpoint is not None and (initial_checkpoint / MANIFEST).is_file():
        verify(initial_checkpoint)
        _resume(state, read_info(initial_checkpoint), hooks, own=False)
    elif initial_checkpoint is not None:
        _load_weights(state, initial_checkpoint)
        hooks.event("initial_weights", file=initial_checkpoint.name)


def starting_vocabulary(directory: Path, *, resume: bool, initial_checkpoint: Path | None) -> Vocabulary | None:
    """Return the vocabulary with which a training has to continue; None if its configuration names the vocabulary.

    It is the one that an earlier attempt stored in the experiment's folder, or that of the experiment's newest
    checkpoint, or that of `initial_checkpoint`. Raises CheckpointError and DataError if it is missing or damaged.
    """
    if resume and (directory / VOCABULARY_FILE).is_file():
        return read_vocabulary(directory / VOCABULARY_FILE)
    if resume and has_checkpoints(directory):
        newest = next(reversed(CheckpointManager(directory / "checkpoints", keep_last=1).list()), None)
        if newest is not None:
            return vocabulary_of(newest.meta, newest.path)
    return None if initial_checkpoint is None else load_vocabulary(initial_checkpoint)


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
    _require_same_vocabulary(state, vocabulary_of(info.meta, info.path), info.path)
    _require_same_shape(state, info.meta.get("model", {}), info.path)
    reasons = state.restore(info, own=own)
    hooks.event("resumed", checkpoint=info.name, step=info.step)
    if reasons:
        hooks.event("resume_inexact", checkpoint=info.name, reasons=reasons)


def _load_weights(state: TrainingState, path: Path) -> None:
    initial = load_model(path)
    _require_same_vocabulary(state, initial.vocabulary, path)
    _require_same_shape(state, initial.config.model_dump(), path)
    state.model.load_state_dict(initial.state_dict())
    state.model.gates_trained = initial.gates_trained


def _require_same_vocabulary(state: TrainingState, other: Vocabulary, path: Path) -> None:
    own = state.model.vocabulary
    if other.digest != own.digest:
        raise CheckpointError(
            f"{path}: its vocabulary is {other}, but the training has {own}; start a new training from the checkpoint"
        )


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
