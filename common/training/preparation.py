"""What a pretraining consists of before its first step: corpus, model, optimiser, state, and where it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from common.checkpoint import CheckpointManager, CheckpointWriter
from common.config.lm import LMConfig
from common.data import ChunkLoader, Corpus, load_tokenizer
from common.errors import ConfigError
from common.model import TransformerLM
from common.training.device import Compute, prepare_compute
from common.training.hooks import StopRequest, TrainingHooks
from common.training.loading import load_corpus
from common.training.loss import summed_loss
from common.training.optimizer import make_optimizer
from common.training.random_state import seed_random_state
from common.training.starting_point import find_start, has_checkpoints
from common.training.training_state import TrainingState


@dataclass
class PretrainingRun:
    """One execution of a pretraining."""

    config: LMConfig
    corpus: Corpus
    compute: Compute
    state: TrainingState
    hooks: TrainingHooks
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    total_steps: int
    clock: float
    """time.monotonic() at which counters.seconds would have been 0."""
    first_step: int
    """Where this execution began."""
    saved_at: float
    """time.monotonic() of the newest checkpoint taken on the way, or of the beginning."""
    overflowing_since: int | None = None
    """Step whose weights were the first to give fp16 gradients that are not finite; None after a sound update."""
    left_for: StopRequest | None = None
    """The newest wish to leave that was heard, whatever came after it."""

    @property
    def seconds(self) -> float:
        """Training time so far, over all attempts."""
        return time.monotonic() - self.clock

    @property
    def time_share(self) -> float:
        """Share of `training.max_seconds` that is used up; 0 without that limit."""
        limit = self.config.training.max_seconds
        return min(1.0, self.seconds / limit) if limit else 0.0

    def early_stop_request(self) -> StopRequest | None:
        """The wish that holds now, if it is one to leave without a final model; it is kept in `left_for`."""
        request = self.hooks.requested_stop()
        if request is None or request is StopRequest.COMPLETE:
            return None
        self.left_for = request
        return request


def prepare_pretraining(
    config: LMConfig,
    directory: Path,
    hooks: TrainingHooks,
    data_dir: Path,
    resume: bool,
    initial_checkpoint: Path | None,
) -> PretrainingRun:
    """Everything ready for the first step. Arguments and errors as of `pretrain`; StoppedWhileLoading on a stop."""
    training = config.training
    vocabulary = load_tokenizer().n_vocab
    if config.model.vocab_size < vocabulary:
        raise ConfigError(
            f"model.vocab_size {config.model.vocab_size} is below the {vocabulary} entries of the tokenizer "
            f"'{config.data.tokenizer}'; use {vocabulary}"
        )

    may_pause = resume and has_checkpoints(directory)
    corpus = load_corpus(config.data, data_dir, hooks, may_pause=may_pause)
    compute = prepare_compute(training)
    seed_random_state(training.seed)
    model = TransformerLM(config.model).to(compute.device)
    loader = ChunkLoader(
        corpus.train,
        context_length=config.model.context_length,
        batch_size=training.micro_batch_size,
        seed=training.seed,
    )
    manager = CheckpointManager(
        directory / "checkpoints", keep_last=config.checkpoint.keep_last, keep_every=config.checkpoint.keep_every
    )
    state = TrainingState(
        model,
        make_optimizer(model, training),
        compute.scaler(),
        loader,
        compute,
        CheckpointWriter(manager, hooks),
        corpus_digest=corpus.digest,
    )
    find_start(state, manager, hooks, resume=resume, initial_checkpoint=initial_checkpoint)
    model.gates_trained = model.gates_trained or training.modulation_fraction > 0
    model.train()
    steps = training.epochs * math.ceil(loader.num_chunks / training.effective_batch_size)
    return PretrainingRun(
        config=config,
        corpus=corpus,
        compute=compute,
        state=state,
        hooks=hooks,
        loss=compute.compiled(lambda ids, targets, m: summed_loss(model, ids, targets, m)),
        total_steps=min(steps, training.max_steps or steps),
        clock=time.monotonic() - state.counters.seconds,
        first_step=state.counters.step,
        saved_at=time.monotonic(),
    )
