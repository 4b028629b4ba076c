"""The complete state of a pretraining, from which it can be resumed exactly.

Weights change only inside `take_step`, under the lock; random states and the position in the data are copied at the end
of a step. Therefore a checkpoint always holds the state after the last finished optimiser step. A checkpoint that
another thread writes during gradient accumulation does not contain the gradients accumulated so far.
`common.training.resumable` saves checkpoints, and `common.training.pretrain` contains the training loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from common.checkpoint import CheckpointInfo, CheckpointWriter, Score, TrainingSnapshot, host_copy
from common.data import BatchLoader
from common.errors import CheckpointError, DataError
from common.model import TransformerLM
from common.training.device import ComputeConfig
from common.training.loss_spikes import LossSpike, LossStatistics
from common.training.optimizer import load_optimizer_state
from common.training.random_state import capture_random_state, restore_random_state
from common.training.resumable import Resumable, environment_differences
from common.training.weight_average import WeightAverage

_TRAINED_WEIGHTS = "trained_weights"
"""Key of the weights before averaging in the training state of a checkpoint."""


@dataclass
class TrainingCounters:
    """The progress of a pretraining."""

    step: int = 0
    """Number of finished optimiser updates."""
    tokens_seen: int = 0
    """Number of tokens in all finished steps."""
    seconds: float = 0.0
    """Training time of all attempts together, in seconds."""
    finished: bool = False
    """Whether training has ended. Then only the evaluation and the writing of the final model remain."""
    validated_step: int = -1
    """Step of the newest validation; -1 before the first one."""
    validation_loss: float | None = None
    """Loss of the newest validation, in nats; None if unknown."""
    validation_bits_per_byte: float | None = None
    """Bits per byte of the newest validation; None if unknown, for example in a checkpoint of an older version."""
    validation_corpora: list[dict[str, Any]] = field(default_factory=list)
    """Results of the newest validation for each corpus, if there are several (`CorpusValidation` as a mapping)."""
    initial_validation_loss: float | None = None
    """Validation loss before the first step, in nats; None if unknown."""
    best_validation_loss: float | None = None
    """Lowest validation loss, in nats. A later loss replaces it only if it is lower by more than
    `training.min_delta`."""
    validations_without_gain: int = 0
    """Number of validations since the one with the lowest loss. Training ends when it reaches `training.patience`."""
    fine_tuning: bool = False
    """Whether the training began with the weights of a trained model and a new optimiser."""


class TrainingState(Resumable):
    """Model, optimiser, gradient scaler, data position, counters and, if used, the average of the weights.

    They are saved and restored together. With an average, a checkpoint has the averaged weights as its weights, because
    these are the ones to evaluate and to use, and the trained weights in its training state.
    """

    NUMBER = "step"

    def __init__(
        self,
        model: TransformerLM,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        loader: BatchLoader,
        compute: ComputeConfig,
        writer: CheckpointWriter,
        *,
        corpus_digest: str,
        average_decay: float | None = None,
    ) -> None:
        super().__init__(model, optimizer, writer)
        self.model = model
        self.scaler = scaler
        self.loader = loader
        self.compute = compute
        self.counters = TrainingCounters()
        self.losses = LossStatistics()
        self._corpus_digest = corpus_digest
        self._average = None if average_decay is None else WeightAverage(model, average_decay)
        self._unproven_step: int | None = None
        """Step of the newest best checkpoint, if only its average has given a finite loss so far."""
        self.mark()

    @property
    def evaluated(self) -> TransformerLM:
        """Return the model to validate, to sample from and to save: the averaged one if there is one."""
        return self.model if self._average is None else self._average.model

    @property
    def checkpoint_copies(self) -> int:
        """Return how many times a checkpoint before the first one is expected to contain the weights."""
        return super().checkpoint_copies + (self._average is not None)

    @property
    def chunks_left(self) -> int:
        """Return how many sequences remain in the current epoch.

        At the end of an epoch, return the number in the next one.
        """
        return self.loader.num_chunks - self.loader.position % self.loader.num_chunks

    @property
    def epochs_done(self) -> float:
        """Return the number of epochs trained, including the fraction of the current one."""
        return self.loader.epoch + self.loader.position / self.loader.num_chunks

    @property
    def epoch_ended(self) -> bool:
        """Return whether the newest step finished an epoch."""
        return self.loader.position == self.loader.num_chunks

    def take_step(self, update: Callable[[], object], tokens: int, loss: float) -> LossSpike | None:
        """Run `update`, which changes the weights; then increment the counters and mark the state as the one to save.

        `loss` is the loss of the step in nats per token. Return a spike of the loss if one begins at this step.
        """
        with self._lock:
            update()
            self.counters.step += 1
            self.counters.tokens_seen += tokens
            if self._average is not None:
                self._average.update(self.counters.step)
            spike = self.losses.add(loss)
            self.mark()
        return spike

    def finish(self) -> None:
        """Record that training has ended with the marked state; later changes of the weights are not saved."""
        self.counters.finished = True
        self._marked = {**self._marked, "counters": asdict(self.counters)}

    def save_in_background(self, *, validation_loss: float | None = None) -> None:
        """Copy the marked state to host memory and submit it to the writer, unless it is already written or submitted.

        Call this only when the loss of these weights is finite. Pass `validation_loss` if it is the lowest so far; the
        state is then submitted in any case.
        """
        if validation_loss is not None and self._average is not None:
            self._unproven_step = self.counters.step
        self._save_in_background(None if validation_loss is None else Score("validation loss", validation_loss))

    def confirm_weights(self) -> None:
        """Record that the weights in the marked state, before averaging, have given a finite loss.

        If this proves a best checkpoint that is already on disk, the older checkpoints are removed.
        """
        newest = self.writer.newest
        if self._unproven_step is not None and newest is not None and newest.step >= self._unproven_step:
            self._unproven_step = None
            self.writer.prune()

    def start_from_weights(self, weights: TransformerLM) -> None:
        """Take over the weights of a model of the same shape. Optimiser, counters and position stay new."""
        self._replace_weights(weights.state_dict())
        self.model.gates_trained = weights.gates_trained
        self.counters.fine_tuning = True
        self.mark()

    def has_same_text(self, info: CheckpointInfo) -> bool:
        """Return whether the training that wrote a checkpoint has read the corpora of this one.

        Raises CheckpointError if the checkpoint is damaged.
        """
        if "corpus" in info.meta:
            return bool(info.meta["corpus"] == self._corpus_digest)
        _, state = self.writer.manager.load(info)  # a checkpoint of an older version
        return bool(state.get("environment", {}).get("corpus") == self._corpus_digest)

    def restore(self, info: CheckpointInfo, *, own: bool = True) -> list[str]:
        """Load a checkpoint. Return the reasons why training cannot continue bit-exactly from it, if any.

        `own` is False for a checkpoint of another experiment. The state is then written again as a checkpoint of this
        experiment, and the flag `finished`, the training time and `validations_without_gain` are reset. If the corpus
        is another one, the position in it and the running mean of the loss are reset. Raises CheckpointError if the
        checkpoint is damaged or does not fit the model.
        """
        weights, state = self.writer.manager.load(info, self.compute.device)
        try:
            self._restore_weights(weights, state.get(_TRAINED_WEIGHTS), own=own)
            other_optimizer = load_optimizer_state(self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.counters = TrainingCounters(**{name: _none_if_nan(value) for name, value in state["counters"].items()})
            same_corpus = state["environment"]["corpus"] == self._corpus_digest
            self.losses.load_state_dict(state.get("losses") if same_corpus else None)
            # Checkpoints of older versions do not store whether the training was compiled.
            before = {"compiled": self.compute.compiles, **state["environment"]}
            reasons = environment_differences(before, self._environment())
            reasons += [] if other_optimizer is None else [other_optimizer]
            reasons += self._restore_position(state)
            if not own and self._average is None and _TRAINED_WEIGHTS in state:
                reasons.append("the weights are the average, but the optimizer state is that of the trained weights")
            if not restore_random_state(state["random"]):
                reasons.append("the number of CUDA devices changed")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{info.path}: the checkpoint does not fit this training ({error})") from error
        self.model.gates_trained = self.model.config.gates and bool(info.meta.get("gates_trained", False))
        if not own:
            self.counters.finished, self.counters.seconds, self.counters.validations_without_gain = False, 0.0, 0
        self.mark()
        if own:
            self.writer.adopt(info, self._key())
        return reasons

    def _restore_weights(
        self, weights: Mapping[str, torch.Tensor], trained: Mapping[str, torch.Tensor] | None, *, own: bool
    ) -> None:
        """Load the weights of a checkpoint.

        If `weights` are an average, `trained` are the weights from which it was made; otherwise `trained` is None.
        A training without an average continues its own trained weights, but starts from the average of another one.
        """
        self._replace_weights(weights)
        if trained is not None and (own or self._average is not None):
            self.model.load_state_dict(trained)

    def _replace_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace the weights and their average, which begins anew with them."""
        self.model.load_state_dict(weights)
        if self._average is not None:
            self._average.load(weights)

    def _restore_position(self, state: dict[str, Any]) -> list[str]:
        if state["environment"]["corpus"] != self._corpus_digest:
            return []  # `environment_differences` reports the new corpus, which is read from its beginning
        try:
            self.loader.load_state_dict(state["loader"])
        except DataError as error:
            return [error.message]
        return []

    def _copy(self) -> dict[str, Any]:
        return {
            "counters": asdict(self.counters),
            "losses": self.losses.state_dict(),
            "random": capture_random_state(),
            "loader": self.loader.state_dict(),
        }

    def _capture(self, score: Score | None = None, *, copied: bool = False) -> TrainingSnapshot:
        snapshot = super()._capture(score, copied=copied)
        if self._average is None:
            return snapshot
        average = self._average.model.state_dict()
        return replace(
            snapshot,
            weights=host_copy(average) if copied else average,
            state={**snapshot.state, _TRAINED_WEIGHTS: snapshot.weights},
        )

    def _describe(
        self, weights: dict[str, torch.Tensor], optimizer: dict[str, Any], score: Score | None, *, copied: bool
    ) -> TrainingSnapshot:
        counters = self._marked["counters"]
        return TrainingSnapshot(
            number=counters["step"],
            step=counters["step"],
            key=self._key(),
            weights=weights,
            state={
                **self._marked,
                "optimizer": optimizer,
                "scaler": self.scaler.state_dict(),
                "environment": self._environment(),
            },
            meta={
                "kind": "lm",
                "model": self.model.config.model_dump(mode="json"),
                "gates_trained": self.model.gates_trained,
                "validation_loss": counters["validation_loss"],
                "bits_per_byte": counters["validation_bits_per_byte"],
                "finished": counters["finished"],
                "compute": self.compute.stored(),
                "corpus": self._corpus_digest,
            },
            vocabulary=self.model.vocabulary,
            score=score,
            proven=self._is_proven(score, copied=copied),
        )

    def _is_proven(self, score: Score | None, *, copied: bool) -> bool:
        """Return whether the weights from which training resumes have given a finite loss.

        A state is copied only in `save_in_background`, after an update has computed a finite loss with it or after a
        validation, which has a score. With an average, the validation does not concern the trained weights.
        """
        if self._average is not None:
            return copied and score is None
        counters = self._marked["counters"]
        return copied or bool(counters["validated_step"] == counters["step"])

    def _environment(self) -> dict[str, Any]:
        return {
            "torch": str(torch.__version__),
            "threads": self.compute.threads,
            "device": self.compute.device.type,
            "precision": self.compute.precision,
            "compiled": self.compute.compiles,
            "corpus": self._corpus_digest,
        }


def _none_if_nan(value: Any) -> Any:
    """Return None for NaN, which older versions stored for an unknown validation loss; return other values
    unchanged."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
