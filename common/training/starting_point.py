"""Finds the state from which a pretraining starts.

The training starts from the newest intact checkpoint of its own experiment, a checkpoint of another experiment, a file
of weights, or new weights.

A checkpoint of another experiment is continued if its training has read the same text: its whole state is restored.
With another text, and from a file of weights, the training is a fine-tuning: only the weights are taken over, optimiser
and counters are new, and the learning rate peaks at `TrainingConfig.fine_tuning_peak`. `CheckpointMode` overrides this
choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.checkpoint import CheckpointInfo, CheckpointManager, load_model, load_vocabulary
from common.checkpoint.manager import MANIFEST, read_info, verify
from common.checkpoint.vocabulary_file import vocabulary_of
from common.config.lm import TrainingConfig
from common.config.model import ModelConfig
from common.data import Vocabulary
from common.errors import CheckpointError, ConfigError
from common.training.hooks import TrainingHooks
from common.training.training_state import TrainingState
from tidal_client.vocabulary import CheckpointMode


@dataclass(frozen=True)
class StartingPoint:
    """Where a pretraining starts. Without a checkpoint and weights, it starts with new weights."""

    checkpoint: CheckpointInfo | None = None
    own: bool = True
    """Whether the checkpoint is of the same experiment."""
    weights: Path | None = None
    """A file of weights."""

    def compute(self, mode: CheckpointMode, corpus_digest: str) -> dict[str, Any] | None:
        """Return the stored result of `ComputeConfig.stored` if the training continues a checkpoint, otherwise None.

        Checkpoints of older versions have none; on a CPU, these versions used float32 without torch.compile.
        """
        if self.checkpoint is None:
            return None
        other_text = self.checkpoint.meta.get("corpus", corpus_digest) != corpus_digest
        if not self.own and (mode is CheckpointMode.FINE_TUNE or (mode is CheckpointMode.AUTO and other_text)):
            return None
        older = {"device": "cpu", "precision": "float32", "compiled": False}
        return dict(self.checkpoint.meta.get("compute") or older)


def find_start(
    manager: CheckpointManager, hooks: TrainingHooks, *, resume: bool, initial_checkpoint: Path | None
) -> StartingPoint:
    """Return the starting point of the training, whose files are verified. Report skipped checkpoints as events.

    Raises CheckpointError if `initial_checkpoint` is damaged or not of a language model.
    """
    newest = newest_intact_checkpoint(manager, hooks) if resume else None
    if newest is not None:
        return StartingPoint(newest)
    if initial_checkpoint is None or not (initial_checkpoint / MANIFEST).is_file():
        return StartingPoint(weights=initial_checkpoint)
    verify(initial_checkpoint)
    info = read_info(initial_checkpoint)
    _require_language_model(info)
    return StartingPoint(info, own=False)


def restore_start(
    state: TrainingState,
    start: StartingPoint,
    manager: CheckpointManager,
    hooks: TrainingHooks,
    training: TrainingConfig,
    mode: CheckpointMode,
) -> None:
    """Restore `state` from the starting point, and report an inexact resume as an event.

    Raises CheckpointError or ConfigError if the shape of the checkpoint's model differs from the model's, or if it is a
    file of weights that cannot be continued.
    """
    checkpoint = start.checkpoint
    if checkpoint is not None and start.own:
        _resume(state, checkpoint, hooks, own=True)
        # The checkpoint is reported again, because the process that wrote it may have died before reporting it.
        hooks.checkpoint_saved(checkpoint)
        # No older checkpoint is removed yet, because only the next update shows whether training can continue from the
        # newest one.
        hooks.checkpoints_kept(manager.names())
    elif checkpoint is not None:
        if mode is CheckpointMode.CONTINUE or (mode is CheckpointMode.AUTO and state.has_same_text(checkpoint)):
            _resume(state, checkpoint, hooks, own=False)
        else:
            _fine_tune(state, checkpoint.path, hooks, training)
    elif start.weights is not None:
        if mode is CheckpointMode.CONTINUE:
            raise ConfigError(
                f"{start.weights.name} contains weights, but no training state to continue; name a training "
                "checkpoint, or choose the checkpoint mode auto or fine-tune"
            )
        _fine_tune(state, start.weights, hooks, training)


def _fine_tune(state: TrainingState, path: Path, hooks: TrainingHooks, training: TrainingConfig) -> None:
    """Begin a fine-tuning with the weights of a file or of the checkpoint of another experiment."""
    initial = load_model(path)
    _require_same_vocabulary(state, initial.vocabulary, path)
    _require_same_shape(state, initial.config.model_dump(), path)
    state.start_from_weights(initial)
    hooks.event("initial_weights", file=path.name, peak_learning_rate=training.fine_tuning_peak())


def starting_vocabulary(directory: Path, *, resume: bool, initial_checkpoint: Path | None) -> Vocabulary | None:
    """Return the vocabulary with which a training has to continue; None if its configuration names the vocabulary.

    It is that of the experiment's newest checkpoint with an intact vocabulary, or that of `initial_checkpoint`. The
    file in the experiment's folder does not count: without a checkpoint, an earlier attempt may have had another
    configuration. Raises CheckpointError and DataError if the vocabulary is missing or damaged.
    """
    error: CheckpointError | None = None
    for info in reversed(_checkpoints(directory)) if resume else ():
        try:
            return vocabulary_of(info.meta, info.path)
        except CheckpointError as damaged:
            error = error or damaged
    if error is not None:
        raise error
    return None if initial_checkpoint is None else load_vocabulary(initial_checkpoint)


def _checkpoints(directory: Path) -> Sequence[CheckpointInfo]:
    return CheckpointManager(directory / "checkpoints", keep_last=1).list() if has_checkpoints(directory) else ()


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
    _require_language_model(info)
    _require_same_vocabulary(state, vocabulary_of(info.meta, info.path), info.path)
    _require_same_shape(state, info.meta.get("model", {}), info.path)
    reasons = state.restore(info, own=own)
    hooks.event("resumed", checkpoint=info.name, step=info.step)
    if reasons:
        hooks.event("resume_inexact", checkpoint=info.name, reasons=reasons)


def _require_language_model(info: CheckpointInfo) -> None:
    if info.meta.get("kind") != "lm":
        raise CheckpointError(
            f"{info.path}: expected a checkpoint of a language model, found kind '{info.meta.get('kind')}'"
        )


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
