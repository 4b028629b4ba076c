"""The statistics of an ablation: means, bootstrap intervals, paired differences and what may be said about them.

Keys of `ablation_results.json`, made by `compare`:

policies.<learned|random|fixed>   episodes; total, modulation, length and components.<name>, each with mean, std
                                  (unbiased, over different prompts) and the 95 % bootstrap interval of the mean,
                                  ci_low to ci_high
paired.learned_minus_<other>      the same of the differences prompt by prompt, and a verdict in words
aliases                           names the original used for a row: neutral_gating is fixed
conclusion, conditions            the verdicts together; prompts, seeds, weights and settings they hold for

An episode counts its mean per token. `perplexity` is the reward component, in [−1, 0]. Leaves out: playing episodes
(`common.rl.ablation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import RLConfig
from common.rl.rewards import COMPONENTS, reward_weights
from tidal_client.vocabulary import GatingMode

CONFIDENCE = 0.95
QUANTITIES = ("total", *COMPONENTS, "modulation", "length")
"""Columns of one episode: means per token, and at the end the number of tokens."""


def interval(values: NDArray[np.float64], resamples: int, seed: int) -> tuple[float, float]:
    """The 95 % bootstrap percentile interval of the mean of `values` (n,).

    The resampled means are sorted; the ends are the entries ⌊.025 · (r − 1)⌋ and ⌊.975 · (r − 1)⌋.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(values), size=(resamples, len(values)))
    means = np.sort(values[chosen].mean(axis=1))
    tail = (1 - CONFIDENCE) / 2
    return float(means[int(tail * (resamples - 1))]), float(means[int((1 - tail) * (resamples - 1))])


def interval_summary(values: NDArray[np.float64], resamples: int, seed: int) -> dict[str, float]:
    """mean, std (unbiased) and interval of one quantity over the prompts."""
    low, high = interval(values, resamples, seed)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "std": spread, "ci_low": low, "ci_high": high}


def compare(
    results: dict[str, NDArray[np.float64]], prompts: Sequence[Sequence[int]], config: RLConfig, *, prompt_source: str
) -> dict[str, Any]:
    """The content of `ablation_results.json`.

    `results` has per policy the quantities of each episode (n, 8) in the order of `QUANTITIES`; `prompts` the n prompts
    they began with. Episodes of equal prompts are averaged first, because they are not independent.
    """
    c = config.ablation
    episodes = len(prompts)
    results = {name: _by_prompt(values, prompts) for name, values in results.items()}

    def table(values: NDArray[np.float64]) -> dict[str, Any]:
        columns = {
            name: interval_summary(values[:, i], c.bootstrap_resamples, c.seed + i) for i, name in enumerate(QUANTITIES)
        }
        components = {name: columns[name] for name in COMPONENTS}
        return {"total": columns["total"], "components": components, "modulation": columns["modulation"]}

    rows = {}
    for name, values in results.items():
        lengths = interval_summary(values[:, -1], c.bootstrap_resamples, c.seed)
        rows[name] = {"episodes": episodes, **table(values), "length": lengths}
    paired = {}
    for other in (name for name in results if name != GatingMode.LEARNED):
        difference = table(results[GatingMode.LEARNED] - results[other])
        paired[f"learned_minus_{other}"] = {**difference, "verdict": verdict(difference["total"], other)}
    return {
        "policies": rows,
        "paired": paired,
        "aliases": {"neutral_gating": GatingMode.FIXED},
        "conclusion": " ".join(str(entry["verdict"]) for entry in paired.values()),
        "conditions": {
            "prompts": episodes,
            "different_prompts": len(next(iter(results.values()))),
            "prompt_source": prompt_source,
            "max_length": config.episode.max_length,
            "fixed_modulation": c.fixed_modulation,
            "learned_action": "deterministic",
            "seed": c.seed,
            "bootstrap_resamples": c.bootstrap_resamples,
            "confidence": CONFIDENCE,
            "reward": "mean per token of an episode",
            "reward_weights": dict(zip(COMPONENTS, reward_weights(config.reward), strict=True)),
        },
    }


def _by_prompt(values: NDArray[np.float64], prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(tuple(prompt), []).append(i)
    return np.stack([values[rows].mean(axis=0) for rows in groups.values()])


def verdict(difference: dict[str, float], other: str) -> str:
    """One honest sentence on the paired difference of the total reward, learned minus `other`."""
    numbers = f"{difference['mean']:+.4f}, 95 % interval {difference['ci_low']:+.4f} to {difference['ci_high']:+.4f}"
    if difference["ci_low"] > 0:
        return f"The learned controller beat {other} ({numbers})."
    if difference["ci_high"] < 0:
        return f"The learned controller did worse than {other} ({numbers})."
    return f"The learned controller did not beat {other}: the interval of the difference includes 0 ({numbers})."
