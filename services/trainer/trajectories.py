"""Analysis jobs, with references resolved: texts generated in batches, then `common.analysis` into one file.

The result follows from the payload, so an attempt that was interrupted leaves nothing and the next begins anew. Leaves
out: the table `analyses`, which the worker fills from the file.
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
TEXTS_AT_ONCE = 32


def analyse(payload: AnalysisPayload, store: ArtifactStore, directory: Path, hooks: TrainingHooks) -> Outcome:
    """Generate, analyse, write `analysis_results.json`. Raises InvalidInputError when a prompt got no token."""
    config = payload.analysis
    begun = time.monotonic()
    hooks.phase("loading model")
    device = prepare_compute(TrainingConfig()).device
    model = DecodingModel(load_model(store.resolve(payload.checkpoint), device=device))
    policy = load_policy(store.resolve(payload.rl_checkpoint), device=device) if payload.rl_checkpoint else None
    hooks.phase("generating")
    parts = plan_samples(config)
    made: list[list[GeneratedSample]] = [[] for _ in parts]
    done = 0
    hooks.report_progress(0, config.token_limit)

    def on_token(*_: object) -> None:
        nonlocal done
        done += 1

    def left() -> bool:
        hooks.wait_while_suspended()
        wait_for_disk(hooks, obeyed=EARLY_STOP_REQUESTS)
        hooks.report_progress(done, config.token_limit)
        return _early_stop(hooks) is not None

    for (mode, modulation), numbers in _alike(parts).items():
        settings = GenerationSettings(
            max_tokens=config.max_tokens,
            gating_mode=mode,
            modulation=modulation,
            policy=policy if mode is GatingMode.LEARNED else None,
        )
        texts = [(number, seed) for number in numbers for seed in parts[number].seeds]
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = texts[start : start + TEXTS_AT_ONCE]
            prompts = [parts[number].prompt for number, _ in batch]
            seeds = [seed for _, seed in batch]
            found = generate_batch(model, prompts, settings, seeds=seeds, on_token=on_token, cancelled=left)
            if left():
                return outcome_of(_early_stop(hooks) or StopRequest.STOP)
            for (number, _), generation in zip(batch, found, strict=True):
                made[number].append(sample_of(generation))
    hooks.phase("analysis")
    result = analysis_result(
        config,
        made,
        checkpoint=payload.checkpoint,
        rl_checkpoint=payload.rl_checkpoint,
        elapsed_ms=1000 * (time.monotonic() - begun),
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
    """Return the fields of a text, generated with modulation, that the analysis needs."""
    steps = generation.trajectory
    return GeneratedSample(
        text=generation.text,
        finish_reason=str(generation.finish_reason),
        token_ids=[step.token_id for step in steps],
        token_texts=[step.text for step in steps],
        modulation=[step.modulation for step in steps if step.modulation is not None],
    )


def _alike(parts: list[SampleGroup]) -> dict[tuple[str, float], list[int]]:
    """Group the indices of parts that may share a batch: those with equal gating mode and modulation."""
    groups: defaultdict[tuple[str, float], list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        groups[part.gating_mode, part.modulation].append(number)
    return groups


def _early_stop(hooks: TrainingHooks) -> StopRequest | None:
    """Return the stop request, but None for COMPLETE, which happens anyway."""
    request = hooks.requested_stop()
    return None if request is StopRequest.COMPLETE else request
