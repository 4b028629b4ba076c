"""Computes the statistics of an ablation: means, bootstrap intervals, paired differences and a conclusion in words.

Keys of `ablation_results.json`, the result of `compare_episodes`:

policies.<name>                   learned, best_constant, random or fixed: episodes; total, modulation, length and
                                  components.<name>, each with mean, std (unbiased, over different prompts) and the
                                  95 % bootstrap interval of the mean, ci_low to ci_high
paired.learned_minus_<other>      the same values for the differences per prompt, and a verdict in words
best_constant                     modulation; grid, the reward of each constant on the development prompts
behaviour                         how much m deviates and what explains it (`common.rl.behaviour`)
aliases                           other names that the original uses for a policy: neutral_gating is fixed
conclusion                        all verdicts together
conditions                        the prompts, seeds, weights and settings of the comparison

`common.rl.ablation` adds best_constant and behaviour. Rewards and modulation of an episode are means over its tokens.
`components.perplexity` is the reward component of this name, in [−1, 0]. `common.rl.ablation` runs the episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import REWARD_COMPONENTS, RLConfig
from common.rl.rewards import reward_weights
from tidal_client.vocabulary import GatingMode

CONFIDENCE = 0.95
"""Confidence level of the intervals."""
QUANTITIES = ("total", *REWARD_COMPONENTS, "modulation", "length")
"""Columns of an episode's results: the means per token, and in the last column the number of tokens."""


def mean_interval(values: NDArray[np.float64], resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap percentile interval of the mean of `values` (n,).

    If m is the sorted list of the means of r resamples, the interval is m[⌊0.025 · (r − 1)⌋] to m[⌊0.975 · (r − 1)⌋].
    """
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(values), size=(resamples, len(values)))
    means = np.sort(values[chosen].mean(axis=1))
    tail = (1 - CONFIDENCE) / 2
    return float(means[int(tail * (resamples - 1))]), float(means[int((1 - tail) * (resamples - 1))])


def interval_summary(values: NDArray[np.float64], resamples: int, seed: int) -> dict[str, float]:
    """Return mean, std (unbiased) and bootstrap interval of the mean of `values` (n,), one value per prompt."""
    low, high = mean_interval(values, resamples, seed)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "std": spread, "ci_low": low, "ci_high": high}


def compare_episodes(
    results: Mapping[str, NDArray[np.float64]],
    prompts: Sequence[Sequence[int]],
    config: RLConfig,
    *,
    prompt_source: str,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of `ablation_results.json`.

    `results` maps the name of each policy to the quantities of its n episodes, (n, 8), in the order of `QUANTITIES`.
    `prompts` holds the n prompts. Episodes of equal prompts are averaged first, because they are not independent.
    `labels` maps names of policies to their names in sentences, where these differ.
    """
    labels = labels or {}
    c = config.ablation
    episodes = len(prompts)
    results = {name: _by_prompt(values, prompts) for name, values in results.items()}

    def table(values: NDArray[np.float64]) -> dict[str, Any]:
        columns = {
            name: interval_summary(values[:, i], c.bootstrap_resamples, c.seed + i) for i, name in enumerate(QUANTITIES)
        }
        components = {name: columns[name] for name in REWARD_COMPONENTS}
        return {"total": columns["total"], "components": components, "modulation": columns["modulation"]}

    per_policy = {}
    for name, values in results.items():
        lengths = interval_summary(values[:, -1], c.bootstrap_resamples, c.seed)
        per_policy[name] = {"episodes": episodes, **table(values), "length": lengths}
    paired = {}
    for other in (name for name in results if name != GatingMode.LEARNED):
        difference = table(results[GatingMode.LEARNED] - results[other])
        paired[f"learned_minus_{other}"] = {
            **difference,
            "verdict": verdict(difference["total"], labels.get(other, other)),
        }
    return {
        "policies": per_policy,
        "paired": paired,
        "aliases": {"neutral_gating": GatingMode.FIXED},
        "conclusion": " ".join(str(entry["verdict"]) for entry in paired.values()),
        "conditions": {
            "prompts": episodes,
            "different_prompts": len(next(iter(results.values()))),
            "prompt_source": prompt_source,
            "max_length": config.episode.max_length,
            "fixed_modulation": c.fixed_modulation,
            "learned_action": config.policy.deterministic_action,
            "seed": c.seed,
            "bootstrap_resamples": c.bootstrap_resamples,
            "confidence": CONFIDENCE,
            "reward": "mean per token of an episode",
            "reward_weights": dict(zip(REWARD_COMPONENTS, reward_weights(config.reward), strict=True)),
        },
    }


def _by_prompt(values: NDArray[np.float64], prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(tuple(prompt), []).append(i)
    return np.stack([values[rows].mean(axis=0) for rows in groups.values()])


def verdict(difference: dict[str, float], other: str) -> str:
    """Return one sentence about the paired difference of the total reward, learned minus `other`.

    The sentence claims a difference only if the interval excludes 0.
    """
    numbers = f"{difference['mean']:+.4f}, 95 % interval {difference['ci_low']:+.4f} to {difference['ci_high']:+.4f}"
    if difference["ci_low"] > 0:
        return f"The learned controller beat {other} ({numbers})."
    if difference["ci_high"] < 0:
        return f"The learned controller did worse than {other} ({numbers})."
    return f"The learned controller did not beat {other}: the interval of the difference includes 0 ({numbers})."
