"""Pretraining of the language model: from a configuration and a corpus to a checkpointed, evaluated, saved model.

Training resumes from the newest intact checkpoint in `<directory>/checkpoints`. A stop request is obeyed at the next
micro-batch. Loss and gradient norm are checked at every update, before the update changes a weight; if one of them is
not finite, the training ends without saving. A checkpoint is written once the next update has shown that its weights
still give a finite loss. A training uses one device. With `max_seconds` a resume is not bit-exact, because the learning
rate depends on the clock. To train, run `tidal train lm --config configs/demo/lm.yaml --out experiments/demo`.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.config.lm import LMConfig
from common.errors import DivergedError, StorageError, require_finite
from common.files import write_atomic, write_json
from common.metrics import names
from common.model.transfer import to_device
from common.prediction.plan import INITIAL_VALIDATION_BATCHES
from common.training.disk_wait import StoppedWaiting, wait_at_boundary
from common.training.divergence import withdraw_and_explain
from common.training.evaluation import validate_corpus
from common.training.final_checkpoint import save_finished_state, try_final_checkpoint
from common.training.final_model import write_final_model
from common.training.hooks import Outcome, TrainingHooks, outcome_of
from common.training.loading import LongPhase, StoppedWhileLoading
from common.training.lr_schedule import finished_share, scheduled_rate
from common.training.optimizer import clip_gradients, set_rates, skip_step, take_step
from common.training.preparation import PretrainingRun, prepare_pretraining
from common.training.run_meter import MEASUREMENT_FILE
from tidal_client.vocabulary import CheckpointMode


def pretrain(
    config: LMConfig,
    directory: Path,
    hooks: TrainingHooks,
    *,
    data_dir: Path,
    resume: bool = True,
    initial_checkpoint: Path | None = None,
    checkpoint_mode: CheckpointMode = CheckpointMode.AUTO,
) -> Outcome:
    """Train until the steps, epochs, time or patience of `config.training` are used up, or until a stop request.

    `directory` is the experiment's folder. With `resume` the training continues from its newest intact checkpoint.
    Without such a checkpoint, it starts from `initial_checkpoint`, as `checkpoint_mode` and
    `common.training.starting_point` describe, or from new weights. If the function returns COMPLETED, the final model
    and `evaluation_results/evaluation_results.json` are written. A training that was paused, stopped or drained leaves
    a checkpoint, unless the request arrived while the corpus was tokenised.

    Raises ConfigError, DataError, CheckpointError and StorageError. Raises DivergedError, which names a checkpoint to
    resume, if a loss, a gradient norm, a validation loss or a logit of the samples is not finite.
    """
    try:
        run = prepare_pretraining(config, directory, hooks, data_dir, resume, initial_checkpoint, checkpoint_mode)
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    hooks.offer_checkpoint(run.state.write_final_and_block)
    try:
        if not run.state.counters.finished:
            run.meter.start()
            _train(run)
            run.meter.stop()
        _report_progress(run)
        if run.early_stop_request() is None:
            run.state.finish()
            if _finish(run, directory):
                _report_measurement(run, directory)
                return Outcome.COMPLETED
        request = run.stopped_by
        assert request is not None  # without a request, the function has returned COMPLETED above
        hooks.phase("checkpoint")
        try_final_checkpoint(run.state.write_final, hooks, request)
        return outcome_of(request)
    except DivergedError as error:
        raise _diverged(run, error, initial_checkpoint) from None
    finally:
        hooks.offer_checkpoint(None)
        run.state.writer.close()


def _train(run: PretrainingRun) -> None:
    """Take steps until the training ends or a stop request arrives; validate and save checkpoints in between."""
    counters, training = run.state.counters, run.config.training
    run.hooks.phase("compile" if run.compute.compiles and run.compute.device.type != "cpu" else "training")
    logged_at = time.monotonic()
    first, logged_step, logged_tokens = True, counters.step, counters.tokens_seen
    while counters.step < run.total_steps and run.seconds < (training.max_seconds or math.inf):
        with run.meter.paused():
            waited = wait_at_boundary(run.hooks, run.state)
        run.started_at, logged_at = run.started_at + waited, logged_at + waited
        if _validation_is_due(run) and not _validate(run):
            return
        if counters.validations_without_gain >= training.patience:
            run.hooks.event("early_stop", step=counters.step, validation_loss=counters.best_validation_loss)
            return
        if run.samples.is_due(counters.step) and not _sample(run):
            return
        update = _take_step(run)
        if update is None:
            return
        _report_progress(run)
        if first:
            run.hooks.phase("training")
            run.meter.first_step_ended(counters.tokens_seen - run.first_tokens)
            first = False
        if counters.step % training.log_every_steps == 0 or counters.step == run.total_steps:
            now = time.monotonic()
            elapsed = max(now - logged_at, 1e-9)
            _report(
                run, update, (counters.step - logged_step) / elapsed, (counters.tokens_seen - logged_tokens) / elapsed
            )
            logged_at, logged_step, logged_tokens = now, counters.step, counters.tokens_seen


class _Update(NamedTuple):
    """The results of one optimiser update."""

    loss: float
    """Mean loss per token in nats."""
    gradient_norm: float
    """Gradient norm before clipping. It is infinite or NaN only if fp16 gradients overflowed and the update was
    skipped."""
    learning_rate: float


def _take_step(run: PretrainingRun) -> _Update | None:
    """Take one optimiser step. Return None if a stop request arrived before all micro-batches were computed.

    The host waits for the device once, after all micro-batches are launched.

    Raises DivergedError, before any weight changes, if loss or gradient norm are not finite.
    """
    state, training = run.state, run.config.training
    batch = training.batch_size_at(finished_share(state.counters.step, run.total_steps, run.time_share))
    sequences = min(batch, state.chunks_left)
    tokens = sequences * state.loader.length
    mean_loss = torch.zeros((), device=run.compute.device)
    for _ in range(math.ceil(sequences / training.micro_batch_size)):
        run.hooks.wait_while_suspended()
        _report_progress(run)
        if run.hooks.requested_stop() is not None:
            state.optimizer.zero_grad(set_to_none=True)
            return None
        input_ids, targets = state.loader.next_batch()
        share = training.modulation_fraction if run.config.model.gates else 0.0
        modulation = _random_modulation(len(input_ids), share)
        with run.compute.autocast():
            loss = run.loss(
                to_device(input_ids, run.compute.device),
                to_device(targets, run.compute.device),
                None if modulation is None else to_device(modulation, run.compute.device),
            )
        loss = loss / tokens
        torch.autograd.backward(state.scaler.scale(loss))
        mean_loss += loss.detach()
    state.loader.prefetch()  # so that the corpus is read while the device computes
    time_fraction = run.time_share
    rate = scheduled_rate(
        state.counters.step,
        run.total_steps,
        warmup_steps=_warmup_steps(run),
        peak=run.peak_learning_rate,
        floor=min(training.min_learning_rate, run.peak_learning_rate),
        time_fraction=time_fraction,
        schedule=training.schedule,
        decay_ratio=training.decay_ratio,
    )
    progress = finished_share(state.counters.step, run.total_steps, time_fraction)
    set_rates(state.optimizer, training, rate, progress)
    gradient_norm = clip_gradients(state.model, state.optimizer, state.scaler, training.max_grad_norm)
    # This is the only synchronisation with the device in the update.
    loss_value, norm_value = torch.stack([mean_loss, gradient_norm]).tolist()
    require_finite("the loss", loss_value)
    gradients_finite = math.isfinite(norm_value)
    if gradients_finite:
        run.overflowing_since = None
        _save_when_due(run)
    elif run.overflowing_since is None:
        run.overflowing_since = state.counters.step
    run.hooks.wait_while_suspended()

    def update() -> None:
        if gradients_finite:
            take_step(state.optimizer, state.scaler)
        else:
            skip_step(state.optimizer, state.scaler, norm_value)
        state.counters.seconds = run.seconds

    spike = state.take_step(update, tokens, loss_value)
    if spike is not None:
        run.hooks.event("loss_spike", step=state.counters.step, **asdict(spike))
    return _Update(loss_value, norm_value, rate)


def _random_modulation(batch: int, fraction: float) -> Tensor | None:
    """Return a random modulation (B, 1), uniform in [0, 1], with probability `fraction`; otherwise None.

    Training with random modulation makes the gates respond to it.
    """
    if fraction <= 0.0 or float(torch.rand(())) >= fraction:
        return None
    return torch.rand(batch, 1)


def _warmup_steps(run: PretrainingRun) -> int:
    training = run.config.training
    return round(training.warmup_ratio * run.total_steps) if training.warmup_steps is None else training.warmup_steps


def _report_progress(run: PretrainingRun) -> None:
    run.hooks.report_progress(run.state.counters.step, run.total_steps, run.time_share)


def _report(run: PretrainingRun, update: _Update, steps_per_second: float, tokens_per_second: float) -> None:
    counters = run.state.counters
    values = {
        names.LOSS: update.loss,
        names.LEARNING_RATE: update.learning_rate,
        names.GRADIENT_NORM: update.gradient_norm,
        names.STEPS_PER_SECOND: steps_per_second,
        names.TOKENS_PER_SECOND: tokens_per_second,
        names.BYTES_PER_SECOND: tokens_per_second * run.corpus.train_bytes_per_token,
        names.TOKENS_SEEN: float(counters.tokens_seen),
        names.EPOCH: run.state.epochs_done,
    }
    share = run.meter.gemm_share(tokens_per_second, run.state.loader.length)
    if share is not None:
        values[names.GEMM_SHARE] = share
    run.meter.observe_memory()
    if not math.isfinite(update.gradient_norm):
        del values[names.GRADIENT_NORM]
    run.hooks.report_metrics("metrics", counters.step, values)


def _report_measurement(run: PretrainingRun, directory: Path) -> None:
    """Report what this attempt has needed, for the comparison with its prediction, and store it with the results."""
    counters = run.state.counters
    found = run.meter.measurement(
        steps=counters.step - run.first_step,
        tokens=counters.tokens_seen - run.first_tokens,
        resumed=run.first_step > 0,
    )
    values = found.model_dump(mode="json")
    with contextlib.suppress(StorageError):  # the model is complete, so a full disk must not fail the training
        write_atomic(directory / MEASUREMENT_FILE, lambda temporary: write_json(temporary, values))
    run.hooks.event("measured", **values)


def _validation_is_due(run: PretrainingRun) -> bool:
    counters, every = run.state.counters, run.config.evaluation.every_steps
    if counters.validated_step == counters.step:
        return False
    if counters.step == 0:
        return True
    return run.state.epoch_ended if every is None else counters.step % every == 0


def _validate(run: PretrainingRun) -> bool:
    """Run a validation and record its result. Return False if a stop request interrupted it."""
    counters, evaluation = run.state.counters, run.config.evaluation
    initial = counters.step == 0
    if initial:
        limit = min(evaluation.max_batches or INITIAL_VALIDATION_BATCHES, INITIAL_VALIDATION_BATCHES)
        evaluation = evaluation.model_copy(update={"max_batches": limit})
    phase = LongPhase(run.hooks, "evaluation")

    def keep_going() -> bool:
        phase.heartbeat()
        return run.hooks.requested_stop() is None

    with run.meter.paused():
        validation = validate_corpus(run.state.evaluated, run.corpus, evaluation, run.compute, keep_going=keep_going)
    run.meter.observe_memory()
    if validation is None:
        return False
    run.hooks.phase("training")
    loss = validation.loss
    counters.validated_step, counters.validation_loss = counters.step, loss
    counters.validation_bits_per_byte = validation.bits_per_byte
    counters.validation_corpora = [asdict(corpus) for corpus in validation.corpora]
    if initial:
        counters.initial_validation_loss = loss
    best = not initial and (
        counters.best_validation_loss is None or loss < counters.best_validation_loss - run.config.training.min_delta
    )
    if best:
        counters.best_validation_loss, counters.validations_without_gain = loss, 0
    elif not initial:
        counters.validations_without_gain += 1
    run.state.mark()
    run.hooks.report_metrics("metrics", counters.step, validation.metrics())
    if best:
        run.state.save_in_background(validation_loss=loss)
    return True


def _sample(run: PretrainingRun) -> bool:
    """Generate and store sample texts. Return False if a stop request interrupted it."""
    with run.meter.paused():
        return run.samples.generate(
            run.state.evaluated, run.state.counters.step, keep_going=lambda: run.hooks.requested_stop() is None
        )


def _save_when_due(run: PretrainingRun) -> None:
    """If a checkpoint is due, save the state after the last step in the background.

    The current update has already computed a finite loss with the weights of this state.
    """
    every, step = run.config.checkpoint, run.state.counters.step
    if step == run.first_step:
        return
    run.state.confirm_weights()
    by_step = any(n is not None and step % n == 0 for n in (every.every_steps, every.keep_every))
    by_time = time.monotonic() - run.saved_at >= every.every_seconds
    if by_step or by_time or run.state.writer.retry_is_due:
        run.state.save_in_background()
        run.saved_at = time.monotonic()


def _diverged(run: PretrainingRun, error: DivergedError, initial_checkpoint: Path | None) -> DivergedError:
    """Report the divergence, withdraw the affected checkpoints, and return the error to raise."""
    state, hooks = run.state, run.hooks
    hooks.offer_checkpoint(None)
    state.forbid_checkpoints()
    state.writer.close()
    step = state.counters.step
    metric = _METRIC_OF.get(error.quantity)
    if metric is not None:
        validation = metric == names.VALIDATION_LOSS
        hooks.report_metrics("metrics", step if validation else step + 1, {metric: error.value})
        when = f"at the validation after update {step}" if validation else f"at update {step + 1}"
    else:
        when = f"after update {step}"
    return withdraw_and_explain(
        error,
        state.writer.manager,
        hooks,
        number=step if run.overflowing_since is None else run.overflowing_since,
        first_number=run.first_step,
        started_from=initial_checkpoint,
        when=when,
        change="lower training.learning_rate or raise training.warmup_steps",
    )


_METRIC_OF = {
    "the loss": names.LOSS,
    "the gradient norm": names.GRADIENT_NORM,
    "the validation loss": names.VALIDATION_LOSS,
}
"""Maps `DivergedError.quantity` to the name of the metric under which the value that is not finite is recorded."""


def _finish(run: PretrainingRun, directory: Path) -> bool:
    """Evaluate and write the final model. Return False if a stop request arrives before all files are written."""
    try:
        _save_finished(run)
        return write_final_model(
            run.state,
            run.config,
            run.corpus,
            directory,
            run.hooks,
            samples=run.samples,
            keep_going=lambda: run.early_stop_request() is None,
        )
    except StoppedWaiting as stop:
        run.stopped_by = stop.request
        return False


def _save_finished(run: PretrainingRun) -> None:
    """Save a checkpoint with the flag `finished`, so that a resumed job only evaluates and writes the final model.

    A failed write is only reported, because the smaller model files may still fit on the disk.
    """
    run.hooks.wait_while_suspended()
    run.hooks.phase("checkpoint")
    try:
        save_finished_state(run.state, run.hooks)
    except StorageError as error:
        run.hooks.event("checkpoint_failed", step=run.state.counters.step, reason=error.message)
    run.hooks.phase("training")
