"""The complete state of a pretraining, from which it can be resumed exactly.

Weights change only inside `take_step`, under the lock; random states and the position in the data are copied at the end
of a step. So a checkpoint always holds the state after the last finished optimiser step. If another thread writes it
during an accumulation, the gradients accumulated so far are discarded. Leaves out: saving
(`common.training.resumable`), the loop (`common.training.pretrain`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from common.checkpoint import CheckpointInfo, CheckpointWriter, Score, TrainingSnapshot
from common.data import ChunkLoader
from common.errors import CheckpointError, DataError
from common.model import TransformerLM
from common.training.device import ComputeConfig
from common.training.random_state import capture_random_state, restore_random_state
from common.training.resumable import Resumable, environment_differences


@dataclass
class TrainingCounters:
    """The progress of a pretraining."""

    step: int = 0
    """Finished optimiser updates."""
    tokens_seen: int = 0
    """Tokens in all finished steps."""
    seconds: float = 0.0
    """Training time over all attempts."""
    finished: bool = False
    """Whether training has ended, so that only evaluation and the final model remain."""
    validated_step: int = -1
    """Step of the newest validation."""
    validation_loss: float | None = None
    """Loss of the newest validation in nats."""
    initial_validation_loss: float | None = None
    """Validation loss before the first step in nats."""
    best_validation_loss: float | None = None
    """Lowest validation loss in nats; a new one counts only if it is lower by more than `training.min_delta`."""
    validations_without_gain: int = 0
    """Validations since the best one, compared with `training.patience`."""


class TrainingState(Resumable):
    """Model, optimiser, scaler, data position and counters of one training, saved and restored together."""

    NUMBER = "step"

    def __init__(
        self,
        model: TransformerLM,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        loader: ChunkLoader,
        compute: ComputeConfig,
        writer: CheckpointWriter,
        *,
        corpus_digest: str,
    ) -> None:
        super().__init__(model, optimizer, writer)
        self.model = model
        self.scaler = scaler
        self.loader = loader
        self.compute = compute
        self.counters = TrainingCounters()
        self._corpus_digest = corpus_digest
        self.mark()

    @property
    def chunks_left(self) -> int:
        """Return the number of sequences until the end of the epoch; at its end, the number in the next epoch."""
        return self.loader.num_chunks - self.loader.position % self.loader.num_chunks

    @property
    def epochs_done(self) -> float:
        """Return the number of finished epochs, including the fraction of the current one."""
        return self.loader.epoch + self.loader.position / self.loader.num_chunks

    @property
    def epoch_ended(self) -> bool:
        """Return whether the newest step was the last of an epoch."""
        return self.loader.position == self.loader.num_chunks

    def take_step(self, update: Callable[[], None], tokens: int) -> None:
        """Run `update`, which changes the weights, count the step and mark the state."""
        with self._lock:
            update()
            self.counters.step += 1
            self.counters.tokens_seen += tokens
            self.mark()

    def finish(self) -> None:
        """Record that training has ended with the marked state; changes since the last mark are discarded."""
        self.counters.finished = True
        self._marked = {**self._marked, "counters": asdict(self.counters)}

    def save_in_background(self, *, validation_loss: float | None = None) -> None:
        """Copy the marked state to host memory and submit it to the writer, unless it is already written or submitted.

        Call it only when these weights have a finite loss. With `validation_loss` the state is the best so far; it is
        always submitted.
        """
        self._save_in_background(None if validation_loss is None else Score("validation loss", validation_loss))

    def restore(self, info: CheckpointInfo, *, own: bool = True) -> list[str]:
        """Load a checkpoint and return the reasons why the continuation is not bit-exact; an empty list means it is.

        `own` is False for a checkpoint of another experiment. This experiment then writes its own copy, and the flag
        `finished`, the training time and the patience are reset. Raises CheckpointError if the checkpoint is damaged or
        does not fit the model.
        """
        weights, state = self.writer.manager.load(info, self.compute.device)
        try:
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.counters = TrainingCounters(**{name: _none_if_nan(value) for name, value in state["counters"].items()})
            reasons = environment_differences(state["environment"], self._environment())
            reasons += self._restore_position(state)
            if not restore_random_state(state["random"]):
                reasons.append("the number of CUDA devices changed")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{info.path}: does not fit this training ({error})") from error
        self.model.gates_trained = bool(info.meta.get("gates_trained", False))
        if not own:
            self.counters.finished, self.counters.seconds, self.counters.validations_without_gain = False, 0.0, 0
        self.mark()
        if own:
            self.writer.adopt(info, self._key())
        return reasons

    def _restore_position(self, state: dict[str, Any]) -> list[str]:
        if state["environment"]["corpus"] != self._corpus_digest:
            return []  # `environment_differences` reports this; the new corpus is read from its beginning
        try:
            self.loader.load_state_dict(state["loader"])
        except DataError as error:
            return [error.message]
        return []

    def _copy(self) -> dict[str, Any]:
        return {
            "counters": asdict(self.counters),
            "random": capture_random_state(),
            "loader": self.loader.state_dict(),
        }

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
                "finished": counters["finished"],
            },
            score=score,
            # A copy is only made while training continues, and only when these weights have a finite loss.
            proven=copied or counters["validated_step"] == counters["step"],
        )

    def _environment(self) -> dict[str, Any]:
        return {
            "torch": str(torch.__version__),
            "threads": self.compute.threads,
            "device": self.compute.device.type,
            "precision": self.compute.precision,
            "corpus": self._corpus_digest,
        }


def _none_if_nan(value: Any) -> Any:
    """Return None for NaN, which older versions stored for an unknown validation loss; other values unchanged."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
