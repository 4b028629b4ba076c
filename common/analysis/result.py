"""A whole analysis: which texts it needs, and what is made of them when they are there.

`plan` says what to generate, whoever generates (the serving engine for an immediate answer, the trainer for a job);
`report` turns the texts into the result that clients see and that is saved. One seed gives one result on either way.
Leaves out: generating.
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
"""Decimal places of a modulation. The serving engine's come with as many, the trainer's with those of a double."""
_SEED_RANGE = 2**63


@dataclass(frozen=True)
class SampleGroup:
    """Texts of one prompt that are made alike, with seeds `seed`, `seed` + 1, …"""

    prompt: str
    gating_mode: GatingMode
    modulation: float
    seed: int
    samples: int
    sweep: bool
    """Made for the sweep, not for the trajectory."""

    @property
    def seeds(self) -> list[int]:
        """One for each text."""
        return [(self.seed + number) % _SEED_RANGE for number in range(self.samples)]


@dataclass(frozen=True)
class GeneratedSample:
    """One generated text; the three sequences have one entry per token."""

    text: str
    """Without the prompt."""
    finish_reason: str
    token_ids: Sequence[int]
    token_texts: Sequence[str]
    modulation: Sequence[float]


def plan_samples(config: AnalysisConfig) -> list[SampleGroup]:
    """What to generate, in the order in which `report` takes it. A sweep gives its three texts the same seed."""
    parts = []
    for number, prompt in enumerate(config.prompts):
        seed = (config.seed + number * config.samples_per_prompt) % _SEED_RANGE
        if config.kind != "sweep":
            parts.append(
                SampleGroup(prompt, config.gating_mode, config.modulation, seed, config.samples_per_prompt, sweep=False)
            )
        if config.kind == "sweep" or config.include_extreme_values:
            parts += [SampleGroup(prompt, GatingMode.FIXED, float(key), seed, 1, sweep=True) for key in SWEEP_KEYS]
    return parts


def analysis_result(
    config: AnalysisConfig,
    made: Sequence[Sequence[GeneratedSample]],
    *,
    checkpoint: str,
    rl_checkpoint: str | None,
    elapsed_ms: float,
) -> dict[str, Any]:
    """The result, ready for JSON, names in camelCase. `made` has the texts of every part of the plan.

    Raises InvalidInputError when the texts of a prompt have no token together.
    """
    parts = plan_samples(config)
    assert len(parts) == len(made)
    trajectories = [_trajectory(part, samples) for part, samples in zip(parts, made, strict=True) if not part.sweep]
    sweeps = [samples[0] for part, samples in zip(parts, made, strict=True) if part.sweep]
    batch = None
    if config.kind == "batch":
        modulations = {
            its["prompt"]: [value for sample in its["samples"] for value in sample["modulation"]]
            for its in trajectories
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
        "sweepAnalysis": _sweep(config.prompts, sweeps) if sweeps else None,
        "tokensGenerated": sum(len(sample.token_ids) for samples in made for sample in samples),
        "elapsedMs": round(elapsed_ms, 3),
    }


def _trajectory(part: SampleGroup, samples: Sequence[GeneratedSample]) -> dict[str, Any]:
    modulations = [[round(value, MODULATION_DIGITS) for value in sample.modulation] for sample in samples]
    tokens = [
        TrajectoryToken(token, text, value)
        for sample, modulation in zip(samples, modulations, strict=True)
        for token, text, value in zip(sample.token_ids, sample.token_texts, modulation, strict=True)
    ]
    if not tokens:
        raise InvalidInputError(
            f"prompt {part.prompt[:60]!r}: the text ended before its first token, so there is no trajectory; "
            "choose another seed or prompt, or ask for more samples per prompt",
            code="empty_trajectory",
        )
    return {
        "prompt": part.prompt,
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
            for seed, sample, modulation in zip(part.seeds, samples, modulations, strict=True)
        ],
    }


def _sweep(prompts: Sequence[str], texts: Sequence[GeneratedSample]) -> dict[str, Any]:
    """The sweep of each prompt, and the mean of their differences."""
    rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        its = texts[number * len(SWEEP_KEYS) : (number + 1) * len(SWEEP_KEYS)]
        written = {key: sample.text for key, sample in zip(SWEEP_KEYS, its, strict=True)}
        analysis = analyze_sweep({key: prompt + text for key, text in written.items()})
        rows.append({"prompt": prompt, "texts": written, **analysis})
    deltas: Sequence[Mapping[str, float]] = [row["deltas"] for row in rows]
    return {
        "prompts": rows,
        "meanDeltas": {name: mean([its[name] for its in deltas]) for name in deltas[0]},
    }


def all_finite(value: Any) -> bool:
    """Whether every number inside is finite, as JSON demands."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(all_finite(item) for item in value.values())
    return not isinstance(value, list | tuple) or all(all_finite(item) for item in value)
