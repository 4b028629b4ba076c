"""Analysis jobs: generate samples in batches, then write the result of `common.analysis` to one file.

The result depends only on the payload. An interrupted attempt leaves no files, and the next one starts from the
beginning. The worker reads the file and inserts its content into the table `analyses`.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path

from common.analysis import GeneratedSample, SampleGroup, analysis_result, plan_samples
from common.artifacts import ArtifactStore
from common.checkpoint import load_model
from common.config import TrainingConfig
from common.controller import load_policy
from common.files import write_atomic, write_text
from common.generation import DecodingModel, Generation, GenerationSettings, generate_batch
from common.jobs.payloads import AnalysisPayload
from common.training.device import prepare_compute
from common.training.disk_wait import EARLY_STOP_REQUESTS, StoppedWaiting, wait_for_disk, write_when_disk_has_space
from common.training.hooks import Outcome, StopRequest, TrainingHooks, outcome_of
from tidal_client.vocabulary import GatingMode

RESULTS_FILE = "analysis_results.json"
BATCH_SIZE = 32
"""Number of samples that are generated in one batch."""


def run_analysis(payload: AnalysisPayload, store: ArtifactStore, directory: Path, hooks: TrainingHooks) -> Outcome:
    """Generate samples, analyse them and write `analysis_results.json`.

    Raises InvalidInputError if no token was generated for a prompt.
    """
    config = payload.analysis
    started = time.monotonic()
    hooks.phase("loading model")
    device = prepare_compute(TrainingConfig()).device
    model = DecodingModel(load_model(store.resolve(payload.checkpoint), device=device))
    policy = load_policy(store.resolve(payload.rl_checkpoint), device=device) if payload.rl_checkpoint else None
    hooks.phase("generating")
    groups = plan_samples(config)
    generated: list[list[GeneratedSample]] = [[] for _ in groups]
    tokens = 0
    hooks.report_progress(0, config.token_limit)

    def on_token(*_: object) -> None:
        nonlocal tokens
        tokens += 1

    def is_stopped() -> bool:
        hooks.wait_while_suspended()
        wait_for_disk(hooks, obeyed=EARLY_STOP_REQUESTS)
        hooks.report_progress(tokens, config.token_limit)
        return _early_stop(hooks) is not None

    for (mode, modulation), numbers in _group_by_settings(groups).items():
        settings = GenerationSettings(
            max_tokens=config.max_tokens,
            gating_mode=mode,
            modulation=modulation,
            policy=policy if mode is GatingMode.LEARNED else None,
        )
        samples = [(number, seed) for number in numbers for seed in groups[number].seeds]
        for start in range(0, len(samples), BATCH_SIZE):
            batch = samples[start : start + BATCH_SIZE]
            prompts = [groups[number].prompt for number, _ in batch]
            seeds = [seed for _, seed in batch]
            generations = generate_batch(model, prompts, settings, seeds=seeds, on_token=on_token, cancelled=is_stopped)
            if is_stopped():
                return outcome_of(_early_stop(hooks) or StopRequest.STOP)
            for (number, _), generation in zip(batch, generations, strict=True):
                generated[number].append(sample_of(generation))
    hooks.phase("analysis")
    result = analysis_result(
        config,
        generated,
        checkpoint=payload.checkpoint,
        rl_checkpoint=payload.rl_checkpoint,
        elapsed_ms=1000 * (time.monotonic() - started),
    )
    hooks.wait_while_suspended()
    text = json.dumps(result, allow_nan=False)
    target = directory / RESULTS_FILE
    try:
        write_when_disk_has_space(hooks, lambda: write_atomic(target, lambda temporary: write_text(temporary, text)))
    except StoppedWaiting as stop:
        return outcome_of(stop.request)
    hooks.artifact_saved(RESULTS_FILE, "analysis")
    hooks.report_progress(config.token_limit, config.token_limit)
    return Outcome.COMPLETED


def sample_of(generation: Generation) -> GeneratedSample:
    """Return those fields of a generation that the analysis needs."""
    steps = generation.trajectory
    return GeneratedSample(
        text=generation.text,
        finish_reason=str(generation.finish_reason),
        token_ids=[step.token_id for step in steps],
        token_texts=[step.text for step in steps],
        modulation=[step.modulation for step in steps if step.modulation is not None],
    )


def _group_by_settings(groups: list[SampleGroup]) -> dict[tuple[str, float], list[int]]:
    """Return {(gating mode, modulation): indices of the groups with these settings}.

    Samples of groups with the same settings may be generated in one batch.
    """
    indices: defaultdict[tuple[str, float], list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        indices[group.gating_mode, group.modulation].append(number)
    return indices


def _early_stop(hooks: TrainingHooks) -> StopRequest | None:
    """Return the stop request.

    Return None if there is none, or if it is "complete", because the analysis completes anyway.
    """
    request = hooks.requested_stop()
    return None if request is StopRequest.COMPLETE else request
