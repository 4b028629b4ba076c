"""Prepares a pretraining: opens the corpus, builds model and optimiser, and restores the state from which it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from common.checkpoint import CheckpointManager, CheckpointWriter
from common.checkpoint.vocabulary_file import save_vocabulary
from common.config.depth import AUTO
from common.config.lm import LMConfig
from common.config.tokenizers import GPT2_SIZE, trained_size
from common.data import Corpus, CorpusLoader, Vocabulary
from common.errors import ConfigError
from common.model import TransformerLM
from common.training.cpu_choice import Workload, choose_on_cpu
from common.training.device import ComputeConfig, prepare_compute
from common.training.disk_wait import StoppedWaiting, write_when_disk_has_space
from common.training.hooks import StopRequest, TrainingHooks
from common.training.loading import StoppedWhileLoading, load_corpus, obeyed_while_loading
from common.training.loss import summed_loss
from common.training.optimizer import make_optimizer
from common.training.random_state import seed_random_state
from common.training.run_meter import RunMeter
from common.training.sample_history import SampleRecorder
from common.training.starting_point import find_start, has_checkpoints, restore_start, starting_vocabulary
from common.training.training_state import TrainingState
from tidal_client.vocabulary import CheckpointMode


@dataclass
class PretrainingRun:
    """One attempt of a pretraining, from its start to its end."""

    config: LMConfig
    corpus: Corpus
    compute: ComputeConfig
    state: TrainingState
    hooks: TrainingHooks
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    total_steps: int
    started_at: float
    """time.monotonic() at the start of this attempt, minus the training time of earlier attempts."""
    meter: RunMeter
    first_step: int
    """Step at which this attempt began."""
    saved_at: float
    """time.monotonic() at the newest regular checkpoint of this attempt or, before the first one, at its start."""
    samples: SampleRecorder
    overflowing_since: int | None = None
    """Step at which the current series of fp16 gradients that are not finite began; None after a finite gradient."""
    first_tokens: int = 0
    """Number of tokens in the steps before this attempt."""
    stopped_by: StopRequest | None = None
    """The newest stop request that ends training without a final model. It is kept even if the user withdraws it."""

    @property
    def seconds(self) -> float:
        """Return the training time so far in seconds, over all attempts."""
        return time.monotonic() - self.started_at

    @property
    def peak_learning_rate(self) -> float:
        """Return the highest learning rate of the schedule."""
        training = self.config.training
        return training.fine_tuning_peak() if self.state.counters.fine_tuning else training.learning_rate

    @property
    def time_share(self) -> float:
        """Return the used share of `training.max_seconds`; 0 without that limit."""
        limit = self.config.training.max_seconds
        return min(1.0, self.seconds / limit) if limit else 0.0

    def early_stop_request(self) -> StopRequest | None:
        """Return the current stop request if it ends training without a final model, and store it in `stopped_by`.

        Otherwise, return None.
        """
        request = self.hooks.requested_stop()
        if request is None or request is StopRequest.COMPLETE:
            return None
        self.stopped_by = request
        return request


def prepare_pretraining(
    config: LMConfig,
    directory: Path,
    hooks: TrainingHooks,
    data_dir: Path,
    resume: bool,
    initial_checkpoint: Path | None,
    checkpoint_mode: CheckpointMode,
) -> PretrainingRun:
    """Return a training that is ready for its first step. Arguments and errors are those of `pretrain`.

    Raises also StoppedWhileLoading if a stop request arrives while the corpus is loaded.
    """
    if config.model.depth == AUTO:
        raise ConfigError("model.depth is auto; resolve it by common.prediction.automatic_depth, or set a number")
    training = config.training
    existing = starting_vocabulary(directory, resume=resume, initial_checkpoint=initial_checkpoint)
    if existing is not None:
        config = config.with_vocabulary(existing.name, existing.size)
    size = trained_size(config.data.tokenizer) or GPT2_SIZE
    if config.model.vocab_size < size:
        raise ConfigError(
            f"model.vocab_size {config.model.vocab_size} is below the {size} entries of the tokenizer "
            f"'{config.data.tokenizer}'; use {size}"
        )

    may_pause = resume and has_checkpoints(directory)
    corpus = load_corpus(config.data, data_dir, hooks, vocabulary=existing, may_pause=may_pause)
    _store_vocabulary(corpus.vocabulary, directory, hooks)
    manager = CheckpointManager(
        directory / "checkpoints", keep_last=config.checkpoint.keep_last, keep_every=config.checkpoint.keep_every
    )
    start = find_start(manager, hooks, resume=resume, initial_checkpoint=initial_checkpoint)
    stored = start.compute(checkpoint_mode, corpus.digest)
    compute = prepare_compute(training, stored)
    meter = RunMeter(config, compute, data_dir)
    seed_random_state(training.seed)
    model = TransformerLM(config.model).to(compute.device)
    model.vocabulary = corpus.vocabulary
    loader = CorpusLoader(
        corpus,
        context_length=config.model.context_length,
        batch_size=training.micro_batch_size,
        seed=training.seed,
        order=training.shuffle,
    )
    steps = training.epochs * math.ceil(loader.num_chunks / training.mean_batch_size)
    total_steps = min(steps, training.max_steps or steps)
    model.train()
    ended = start.checkpoint is not None and start.own and bool(start.checkpoint.meta.get("finished"))
    if compute.device.type == "cpu" and not ended:
        batch = min(training.mean_batch_size, loader.num_chunks)
        micro_batch = min(training.micro_batch_size, loader.num_chunks)
        work = Workload(
            micro_batch,
            loader.length,
            total_steps * math.ceil(batch / micro_batch),
            modulated=config.model.gates and training.modulation_fraction > 0,
        )
        compute = choose_on_cpu(
            model,
            compute,
            training,
            work,
            hooks,
            stored=stored is not None and stored["device"] == "cpu",
            obeyed=obeyed_while_loading(may_pause=may_pause),
        )
    elif not ended:
        hooks.event("compute", precision=compute.precision, compiled=compute.compiles)
    state = TrainingState(
        model,
        make_optimizer(model, training),
        compute.scaler(),
        loader,
        compute,
        CheckpointWriter(manager, hooks),
        corpus_digest=corpus.digest,
        average_decay=training.average_decay,
    )
    restore_start(state, start, manager, hooks, training, checkpoint_mode)
    model.gates_trained = config.model.gates and (model.gates_trained or training.modulation_fraction > 0)
    return PretrainingRun(
        config=config,
        corpus=corpus,
        compute=compute,
        state=state,
        hooks=hooks,
        loss=compute.compiled(lambda ids, targets, m: summed_loss(model, ids, targets, m)),
        total_steps=total_steps,
        started_at=time.monotonic() - state.counters.seconds,
        meter=meter,
        first_step=state.counters.step,
        samples=SampleRecorder(directory, config.evaluation, hooks, step=state.counters.step),
        first_tokens=state.counters.tokens_seen,
        saved_at=time.monotonic(),
    )


def _store_vocabulary(vocabulary: Vocabulary, directory: Path, hooks: TrainingHooks) -> None:
    """Write a vocabulary other than GPT-2's to the experiment's folder, as soon as the disk has space.

    Another or a damaged file is replaced, because the checkpoints have the vocabulary with which a training resumes.
    """
    try:
        write_when_disk_has_space(hooks, partial(save_vocabulary, vocabulary, directory, replace=True))
    except StoppedWaiting as stop:
        raise StoppedWhileLoading(stop.request) from None
