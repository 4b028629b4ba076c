"""Computes the reward of a decoding step: five components and their weighted sum, for one token or a batch.

`step_reward` is the readable definition in plain floats. Rollouts use `reward_components`, which computes the same
components for B sequences on the device. Both functions score the distribution after repetition penalty and
temperature, but before top-p and top-k (the scored distribution). Tokens are sampled from the distribution after top-p
and top-k (the sampling distribution).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.config import REWARD_COMPONENTS, RewardConfig
from common.rl.statistics import NgramStatistics

WINDOW = 10
"""Number of preceding tokens that the repetition component considers."""

DIVERSITY_WIDTH = 2.5
"""Standard deviation in nats of the Gaussian that rates the entropy of the scored distribution."""
SAMPLING_WIDTH = 1.25
"""Standard deviation in nats of the Gaussian that rates the entropy of the sampling distribution."""


@dataclass(frozen=True)
class StepReward:
    """The reward of one token: `total` = Σ weight · component; the keys of `components` are `REWARD_COMPONENTS`."""

    total: float
    components: dict[str, float]


def reward_weights(config: RewardConfig) -> tuple[float, ...]:
    """Return the configured weights in the order of `REWARD_COMPONENTS`."""
    return tuple(float(getattr(config, f"{name}_weight")) for name in REWARD_COMPONENTS)


def without_components(weights: Sequence[float], *names: str) -> tuple[float, ...]:
    """Return `weights` with those of the components `names` set to 0.

    The others are scaled so that the sum stays the same.

    Raises ValueError for an unknown name, and if no weight above 0 remains.
    """
    unknown = set(names) - set(REWARD_COMPONENTS)
    if unknown:
        raise ValueError(
            f"unknown reward component {sorted(unknown)[0]!r}; the components are {', '.join(REWARD_COMPONENTS)}"
        )
    kept = [0.0 if name in names else weight for name, weight in zip(REWARD_COMPONENTS, weights, strict=True)]
    if sum(kept) <= 0:
        raise ValueError(
            f"without {', '.join(names)} no component has a weight above 0; keep at least one such component"
        )
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
    """Return the reward of one sampled token.

    `scored_logits` (V,) are the logits after repetition penalty and temperature, `generated` are all tokens before
    `token` including the prompt, and `sampling_entropy` is the entropy in nats of the distribution from which `token`
    was sampled. Without `statistics` the coherence is 0.5.
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
    return StepReward(total, dict(zip(REWARD_COMPONENTS, values, strict=True)))


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
    """Return the components of B tokens, float32 (B, 5) in the order of `REWARD_COMPONENTS`.

    Nothing here waits for the device. `token` (B,) int64 has the log-probability `log_prob` (B,). `entropy` and
    `sampling_entropy` (B,) are those of the scored and of the sampling distribution, in nats. `recent` (B, 10) int64
    holds the preceding tokens, the newest last, padded with −1.
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
