"""Writes the result of a completed pretraining: the model in two formats and the evaluation results."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from common.artifacts.best import BestCheckpoint, read_best
from common.checkpoint import save_model
from common.config.lm import LMConfig
from common.data import Corpus
from common.training.disk_wait import write_when_disk_has_space
from common.training.evaluation import (
    RESULTS_FILE,
    CorpusValidation,
    Validation,
    generate_samples,
    validate_corpus,
    write_results,
)
from common.training.hooks import TrainingHooks
from common.training.loading import LongPhase
from common.training.sample_history import SampleRecorder
from common.training.training_state import TrainingState


def write_final_model(
    state: TrainingState,
    config: LMConfig,
    corpus: Corpus,
    directory: Path,
    hooks: TrainingHooks,
    *,
    samples: SampleRecorder,
    keep_going: Callable[[], bool],
) -> bool:
    """Evaluate, then write `{name}_v{version}.pth` (raw state dict), `.safetensors` and, last, the evaluation results.

    Return False, with nothing written, when `keep_going` returned False during the evaluation. Waits while the disk is
    full. Raises StoppedWaiting on a stop request during that wait, StorageError for any other error of the disk, and
    DivergedError, with nothing written, when validation loss or weights are not finite.
    """
    phase = LongPhase(hooks, "evaluation")

    def keep_validating() -> bool:
        phase.heartbeat()
        return keep_going()

    counters = state.counters
    validation = _newest_validation(state)
    if validation is None:
        validation = validate_corpus(
            state.evaluated, corpus, config.evaluation, state.compute, keep_going=keep_validating
        )
        if validation is None:
            return False
        hooks.report_metrics("metrics", counters.step, validation.metrics())
    loss = validation.loss
    state.writer.prune()  # the finite loss shows that the last checkpoint is usable
    texts = generate_samples(state.evaluated, config.evaluation, cancelled=lambda: not keep_validating())
    if texts is None or not keep_going():
        return False
    hooks.wait_while_suspended()
    hooks.offer_checkpoint(None)
    hooks.phase("saving")
    stem = f"{config.model.name}_v{config.model.version}"
    for suffix in (".pth", ".safetensors"):
        target = directory / f"{stem}{suffix}"
        write_when_disk_has_space(hooks, partial(save_model, state.evaluated, target))
        hooks.artifact_saved(f"{stem}{suffix}", "model")
    manager = state.writer.manager
    best = read_best(manager.directory)
    if best is None or loss <= best.value:
        newest = BestCheckpoint(f"{stem}.safetensors", "validation loss", loss, counters.step)
        write_when_disk_has_space(hooks, partial(manager.record_best, newest))
    samples.add(counters.step, texts)
    results = {
        "model": f"{stem}.safetensors",
        **validation.results(),
        "initial_validation_loss": counters.initial_validation_loss,
        "best_validation_loss": min(loss, counters.best_validation_loss or loss),
        "steps": counters.step,
        "tokens_seen": counters.tokens_seen,
        "training_seconds": counters.seconds,
        "corpus": corpus.description,
        "device": str(state.compute.device),
        "samples": texts,
        "created_at": datetime.now(UTC).isoformat(),
    }
    write_when_disk_has_space(hooks, partial(write_results, directory, results))
    hooks.artifact_saved(RESULTS_FILE, "evaluation")
    return True


def _newest_validation(state: TrainingState) -> Validation | None:
    """Return the result of a validation after the last step; None without one, or if its bits per byte are unknown."""
    counters = state.counters
    loss, bits_per_byte = counters.validation_loss, counters.validation_bits_per_byte
    if loss is None or bits_per_byte is None or counters.validated_step != counters.step or counters.step == 0:
        return None
    corpora = tuple(CorpusValidation(**found) for found in counters.validation_corpora)
    return Validation(loss, bits_per_byte, corpora)
