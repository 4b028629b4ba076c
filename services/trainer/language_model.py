"""Language model jobs: pretraining and evaluation.

The functions are called by `services.trainer.handlers` for jobs of a worker, and by `services.trainer.local` for `tidal
train`. Their arguments are paths, not references to checkpoints. The training loop is in `common.training.pretrain`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from common.checkpoint import load_model, load_vocabulary
from common.config import DataConfig, EvaluationConfig, LMConfig, TrainingConfig
from common.errors import DivergedError
from common.training.device import prepare_compute
from common.training.disk_wait import EARLY_STOP_REQUESTS, StoppedWaiting, wait_for_disk, write_when_disk_has_space
from common.training.evaluation import (
    RESULTS_FILE,
    generate_samples,
    validate_corpus,
    write_results,
)
from common.training.hooks import Outcome, StopRequest, TrainingHooks, outcome_of
from common.training.loading import StoppedWhileLoading, load_corpus
from common.training.pretrain import pretrain
from tidal_client.vocabulary import CheckpointMode


def train_language_model(
    config: LMConfig,
    directory: Path,
    hooks: TrainingHooks,
    *,
    data_dir: Path,
    initial_checkpoint: Path | None = None,
    checkpoint_mode: CheckpointMode = CheckpointMode.AUTO,
    resume: bool = True,
) -> Outcome:
    """Run `common.training.pretrain`."""
    return pretrain(
        config,
        directory,
        hooks,
        data_dir=data_dir,
        resume=resume,
        initial_checkpoint=initial_checkpoint,
        checkpoint_mode=checkpoint_mode,
    )


def evaluate_checkpoint(
    model_path: Path,
    directory: Path,
    hooks: TrainingHooks,
    *,
    data: DataConfig,
    evaluation: EvaluationConfig,
    data_dir: Path,
) -> Outcome:
    """Write validation loss, perplexity, bits per byte and samples of a model to a file in `evaluation_results/`.

    A stop request ends the evaluation without a file. Raises DivergedError if the loss is not finite.
    """
    try:
        corpus = load_corpus(data, data_dir, hooks, vocabulary=load_vocabulary(model_path))
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    compute = prepare_compute(TrainingConfig())
    model = load_model(model_path, device=compute.device)
    hooks.phase("evaluation")

    def keep_going() -> bool:
        hooks.wait_while_suspended()
        wait_for_disk(hooks, obeyed=EARLY_STOP_REQUESTS)
        hooks.report_progress(0, 1)
        return _early_stop(hooks) is None

    try:
        validation = validate_corpus(model, corpus, evaluation, compute, keep_going=keep_going)
    except DivergedError as error:
        raise DivergedError(
            f"{model_path.name}: {error.message} on {corpus.description}, so there are no results; the training that "
            "wrote this checkpoint had diverged or was about to; evaluate an earlier checkpoint",
            quantity=error.quantity,
            value=error.value,
        ) from None
    samples = None
    if validation is not None:
        # Report the phase again: generating the samples reports no progress, and the supervisor kills a trainer that
        # sends no message for too long.
        hooks.phase("evaluation")
        samples = generate_samples(model, evaluation, cancelled=lambda: _early_stop(hooks) is not None)
    if validation is None or samples is None or not keep_going():
        return outcome_of(_early_stop(hooks) or StopRequest.STOP)
    hooks.report_metrics("metrics", 0, validation.metrics())
    results = {
        "model": model_path.name,
        **validation.results(),
        "corpus": corpus.description,
        "device": str(compute.device),
        "samples": samples,
        "created_at": datetime.now(UTC).isoformat(),
    }
    try:
        write_when_disk_has_space(hooks, partial(write_results, directory, results))
    except StoppedWaiting as stop:
        return outcome_of(stop.request)
    hooks.artifact_saved(RESULTS_FILE, "evaluation")
    hooks.report_progress(1, 1)
    return Outcome.COMPLETED


def _early_stop(hooks: TrainingHooks) -> StopRequest | None:
    """Return the stop request.

    Return None if there is none, or if it is "complete", because the evaluation completes anyway.
    """
    request = hooks.requested_stop()
    return None if request is StopRequest.COMPLETE else request
