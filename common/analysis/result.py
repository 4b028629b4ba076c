"""Plans the samples of an analysis and computes its result from them.

`plan_samples` lists the samples to generate. The generator's engine generates them if a client waits for the result,
the trainer if the analysis is a job. `analysis_result` computes the result, which is sent to clients and saved. Engine
and trainer give the same result for the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from common.analysis.stats import mean
from common.analysis.trajectory import SWEEP_KEYS, TrajectoryToken, analyze_batch, analyze_sweep, analyze_trajectory
from common.config import AnalysisConfig
from common.errors import InvalidInputError
from tidal_client.vocabulary import GatingMode

MODULATION_DIGITS = 6
"""Decimal places to which `analysis_result` rounds modulations, so that samples from the engine, which are already
rounded, and samples from the trainer, which are not, give the same result."""
_SEED_RANGE = 2**63


@dataclass(frozen=True)
class SampleGroup:
    """Samples of one prompt. They have the same gating mode and modulation, and the seeds `seed`, `seed` + 1, …"""

    prompt: str
    gating_mode: GatingMode
    modulation: float
    seed: int
    samples: int
    sweep: bool
    """True if the samples are for `analyze_sweep` (fixed modulations), False if they are for `analyze_trajectory`."""

    @property
    def seeds(self) -> list[int]:
        """Return the seed of each sample."""
        return [(self.seed + number) % _SEED_RANGE for number in range(self.samples)]


@dataclass(frozen=True)
class GeneratedSample:
    """One generated sample; `token_ids`, `token_texts` and `modulation` have one entry per token."""

    text: str
    """The text without the prompt."""
    finish_reason: str
    token_ids: Sequence[int]
    token_texts: Sequence[str]
    modulation: Sequence[float]


def plan_samples(config: AnalysisConfig) -> list[SampleGroup]:
    """Return the samples to generate, in the order that `analysis_result` expects.

    The three samples of a sweep (modulation 0, 0.5 and 1) have the same seed.
    """
    groups = []
    for number, prompt in enumerate(config.prompts):
        seed = (config.seed + number * config.samples_per_prompt) % _SEED_RANGE
        if config.kind != "sweep":
            groups.append(
                SampleGroup(prompt, config.gating_mode, config.modulation, seed, config.samples_per_prompt, sweep=False)
            )
        if config.kind == "sweep" or config.include_extreme_values:
            groups += [SampleGroup(prompt, GatingMode.FIXED, float(key), seed, 1, sweep=True) for key in SWEEP_KEYS]
    return groups


def analysis_result(
    config: AnalysisConfig,
    generated: Sequence[Sequence[GeneratedSample]],
    *,
    checkpoint: str,
    rl_checkpoint: str | None,
    elapsed_ms: float,
) -> dict[str, Any]:
    """Return the result of an analysis as a dictionary for JSON, with camelCase keys.

    `generated` holds a list of samples for each group that `plan_samples` returns. Raises InvalidInputError if the
    samples of a prompt have no tokens.
    """
    groups = plan_samples(config)
    assert len(groups) == len(generated)
    pairs = list(zip(groups, generated, strict=True))
    trajectories = [_trajectory(group, samples) for group, samples in pairs if not group.sweep]
    sweep_samples = [samples[0] for group, samples in pairs if group.sweep]
    batch = None
    if config.kind == "batch":
        modulations = {
            entry["prompt"]: [value for sample in entry["samples"] for value in sample["modulation"]]
            for entry in trajectories
        }
        batch = analyze_batch(modulations, bootstrap=config.bootstrap, seed=config.seed)
    return {
        "kind": config.kind,
        "request": {
            "checkpoint": checkpoint,
            "rlCheckpoint": rl_checkpoint,
            **{to_camel(name): value for name, value in config.model_dump(mode="json").items()},
        },
        "trajectories": trajectories,
        "batchAnalysis": batch,
        "sweepAnalysis": _sweep(config.prompts, sweep_samples) if sweep_samples else None,
        "tokensGenerated": sum(len(sample.token_ids) for samples in generated for sample in samples),
        "elapsedMs": round(elapsed_ms, 3),
    }


def _trajectory(group: SampleGroup, samples: Sequence[GeneratedSample]) -> dict[str, Any]:
    modulations = [[round(value, MODULATION_DIGITS) for value in sample.modulation] for sample in samples]
    tokens = [
        TrajectoryToken(token, text, value)
        for sample, modulation in zip(samples, modulations, strict=True)
        for token, text, value in zip(sample.token_ids, sample.token_texts, modulation, strict=True)
    ]
    if not tokens:
        raise InvalidInputError(
            f"prompt {group.prompt[:60]!r}: generation ended before the first token, so there is no trajectory; "
            "choose another seed or prompt, or request more samples per prompt",
            code="empty_trajectory",
        )
    return {
        "prompt": group.prompt,
        "analysis": analyze_trajectory(tokens),
        "samples": [
            {
                "seed": seed,
                "text": sample.text,
                "finishReason": sample.finish_reason,
                "tokenIds": list(sample.token_ids),
                "tokenTexts": list(sample.token_texts),
                "modulation": modulation,
            }
            for seed, sample, modulation in zip(group.seeds, samples, modulations, strict=True)
        ],
    }


def _sweep(prompts: Sequence[str], samples: Sequence[GeneratedSample]) -> dict[str, Any]:
    """Return the result of `analyze_sweep` for each prompt, and the means of its `deltas` over all prompts."""
    entries: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        of_prompt = samples[number * len(SWEEP_KEYS) : (number + 1) * len(SWEEP_KEYS)]
        texts = {key: sample.text for key, sample in zip(SWEEP_KEYS, of_prompt, strict=True)}
        analysis = analyze_sweep({key: prompt + text for key, text in texts.items()})
        entries.append({"prompt": prompt, "texts": texts, **analysis})
    deltas: Sequence[Mapping[str, float]] = [entry["deltas"] for entry in entries]
    return {
        "prompts": entries,
        "meanDeltas": {name: mean([delta[name] for delta in deltas]) for name in deltas[0]},
    }


def all_finite(value: Any) -> bool:
    """Return whether all numbers in `value`, at any depth, are finite. JSON does not allow others."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(all_finite(item) for item in value.values())
    return not isinstance(value, list | tuple) or all(all_finite(item) for item in value)
