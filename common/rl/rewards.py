"""The reward of one decoding step: five components, their weighted sum, for one token and for a batch.

`step_reward` is the readable definition in plain floats; `reward_components` computes the same for B rows on the device
and is what rollouts use. Both score the distribution after repetition penalty and temperature, before top-p and top-k.
Leaves out: how weights change over training (`common.rl.schedules`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.config import RewardConfig
from common.rl.statistics import NgramStatistics

COMPONENTS = ("perplexity", "diversity", "sampling", "repetition", "coherence")
"""Order of the last axis of `reward_components` and of `reward_weights`."""

WINDOW = 10
"""Tokens before the scored one that the repetition component looks at."""

DIVERSITY_WIDTH = 2.5
SAMPLING_WIDTH = 1.25
"""Standard deviations of the two Gaussian bumps, nats."""


@dataclass(frozen=True)
class StepReward:
    """`total` = Σ weight · component; `components` by the names of `COMPONENTS`."""

    total: float
    components: dict[str, float]


def reward_weights(config: RewardConfig) -> tuple[float, ...]:
    """The configured weights in the order of `COMPONENTS`."""
    return (
        config.perplexity_weight,
        config.diversity_weight,
        config.sampling_weight,
        config.repetition_weight,
        config.coherence_weight,
    )


def without_components(weights: Sequence[float], *names: str) -> tuple[float, ...]:
    """An ablation variant: the named components at 0, the others renormalised to the old sum.

    Raises ValueError for an unknown name and when nothing is left.
    """
    unknown = set(names) - set(COMPONENTS)
    if unknown:
        raise ValueError(f"no reward component {sorted(unknown)[0]!r}; there are {', '.join(COMPONENTS)}")
    kept = [0.0 if name in names else weight for name, weight in zip(COMPONENTS, weights, strict=True)]
    if sum(kept) <= 0:
        raise ValueError(f"without {', '.join(names)} no component has a weight")
    scale = sum(weights) / sum(kept)
    return tuple(weight * scale for weight in kept)


def step_reward(
    scored_logits: Tensor,
    token: int,
    generated: Sequence[int],
    sampling_entropy: float,
    statistics: NgramStatistics | None = None,
    config: RewardConfig | None = None,
) -> StepReward:
    """Score one sampled token.

    `scored_logits` (V,) after repetition penalty and temperature; `generated` the tokens before `token`, prompt
    included; `sampling_entropy` in nats of the distribution sampled from; `statistics` None means coherence 0.5.
    """
    config = config or RewardConfig()
    log_probs = scored_logits.double().log_softmax(-1)
    log_prob = float(log_probs[token])
    entropy = -float(torch.where(log_probs > -math.inf, log_probs.exp() * log_probs, 0.0).sum())
    values = (
        -min(-log_prob, math.log(config.perplexity_clip)) / math.log(config.perplexity_clip),
        _gaussian(entropy, config.entropy_target, DIVERSITY_WIDTH),
        _gaussian(sampling_entropy, config.sampling_entropy_target, SAMPLING_WIDTH),
        -_repetition_penalty(token, generated),
        _coherence(token, generated, statistics),
    )
    total = sum(weight * value for weight, value in zip(reward_weights(config), values, strict=True))
    return StepReward(total, dict(zip(COMPONENTS, values, strict=True)))


def _gaussian(value: float, centre: float, width: float) -> float:
    return math.exp(-0.5 * ((value - centre) / width) ** 2)


def _repetition_penalty(token: int, generated: Sequence[int]) -> float:
    count = list(generated[-WINDOW:]).count(token)
    penalty = (0.0, 0.25, 0.5)[count] if count < 3 else min(0.75 + 0.05 * (count - 3), 1.0)
    if generated and generated[-1] == token:
        penalty += 0.3
    return min(penalty, 1.0)


def _coherence(token: int, generated: Sequence[int], statistics: NgramStatistics | None) -> float:
    if statistics is None or not generated:
        return 0.5
    return float(statistics.coherence(torch.tensor(generated[-1]), torch.tensor(token)))


def reward_components(
    log_prob: Tensor,
    entropy: Tensor,
    sampling_entropy: Tensor,
    token: Tensor,
    recent: Tensor,
    statistics: NgramStatistics | None,
    config: RewardConfig,
) -> Tensor:
    """The components of B tokens, float32 (B, 5) in the order of `COMPONENTS`.

    `log_prob` (B,) of the token and `entropy` (B,) of the scored distribution, `sampling_entropy` (B,), nats; `token`
    (B,) int64; `recent` (B, 10) int64 the tokens before it, newest last, −1 where there are none. No host sync.
    """
    log_clip = math.log(config.perplexity_clip)
    count = (recent == token[:, None]).sum(1)
    graded = torch.where(count < 3, 0.25 * count, (0.75 + 0.05 * (count - 3)).clamp_max(1.0))
    previous = recent[:, -1]
    repetition = (graded + 0.3 * (previous == token)).clamp_max(1.0)
    coherence = torch.full_like(log_prob, 0.5) if statistics is None else statistics.coherence(previous, token)
    return torch.stack(
        (
            log_prob.clamp_min(-log_clip) / log_clip,
            torch.exp(-0.5 * ((entropy - config.entropy_target) / DIVERSITY_WIDTH) ** 2),
            torch.exp(-0.5 * ((sampling_entropy - config.sampling_entropy_target) / SAMPLING_WIDTH) ** 2),
            -repetition,
            coherence,
        ),
        dim=1,
    )
