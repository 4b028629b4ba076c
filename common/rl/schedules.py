"""Schedules and controllers of controller training as pure functions: state in, state out.

Used by `common.rl.train` today: the two linear schedules. Homeostasis, the constrained mode (PPO-Lagrangian) and the
gate loss are here with their tests. Every rate counts per 128 transitions; `times` applies it for a larger rollout.
Leaves out: who calls them and where their state is stored.
"""

from __future__ import annotations

import math

from torch import Tensor

from common.errors import require_finite
from common.rl.rewards import without_components

TRANSITIONS_PER_UPDATE = 128
"""Transitions one application of a controller rate stands for."""


def linear(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at progress 1; progress outside [0, 1] is clamped."""
    share = min(max(progress, 0.0), 1.0)
    return start + (end - start) * share


def decayed_learning_rate(base: float, progress: float) -> float:
    """Falls linearly from `base` to 10 % of it."""
    return linear(base, 0.1 * base, progress)


def homeostasis(
    value: float,
    measured: float,
    *,
    target: float,
    baseline: float,
    release_rate: float,
    decay_rate: float,
    low: float,
    high: float,
    times: int = 1,
) -> float:
    """One control step of a coefficient that is released while `measured` is below `target` and decays to `baseline`.

    value += release_rate · (target − measured) if measured < target; value = decay_rate · value +
    (1 − decay_rate) · baseline; clamp to [low, high]. Repeated `times` with the same measurement. DivergedError when
    an input is not finite: the clamp would turn it into a bound that looks like a result.
    """
    require_finite("the controlled coefficient", value)
    require_finite("the measurement that controls a coefficient", measured)
    for _ in range(times):
        if measured < target:
            value += release_rate * (target - measured)
        value = decay_rate * value + (1 - decay_rate) * baseline
        value = min(max(value, low), high)
    return value


def entropy_homeostasis(
    coefficient: float,
    policy_entropy: float,
    *,
    target: float = -0.35,
    baseline: float = 0.01,
    release_rate: float = 0.05,
    decay_rate: float = 0.95,
    low: float = 0.01,
    high: float = 0.5,
    times: int = 1,
) -> float:
    """The next entropy coefficient from the mean policy entropy (nats) of the last update."""
    return homeostasis(
        coefficient,
        policy_entropy,
        target=target,
        baseline=baseline,
        release_rate=release_rate,
        decay_rate=decay_rate,
        low=low,
        high=high,
        times=times,
    )


def diversity_homeostasis(
    weight: float,
    diversity: float,
    *,
    target: float = 0.55,
    baseline: float = 0.15,
    release_rate: float = 0.03,
    decay_rate: float = 0.95,
    low: float = 0.15,
    high: float = 0.35,
    times: int = 1,
) -> float:
    """The diversity weight of the next rollout from the mean diversity reward of the last."""
    return homeostasis(
        weight,
        diversity,
        target=target,
        baseline=baseline,
        release_rate=release_rate,
        decay_rate=decay_rate,
        low=low,
        high=high,
        times=times,
    )


def constrained_weights(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Reward weights of the constrained mode: diversity and repetition 0, the rest renormalised to sum 1.

    Raises ValueError when nothing is left.
    """
    kept = without_components(weights, "diversity", "repetition")
    return tuple(weight / sum(kept) for weight in kept)


def hinge_cost(diversity: Tensor, threshold: float = 0.55) -> Tensor:
    """max(0, threshold − diversity), any shape: what the cost critic learns."""
    return (threshold - diversity).clamp_min(0)


def dual_step(multiplier: float, diversity: float, *, threshold: float = 0.55, rate: float = 0.05) -> float:
    """Projected ascent on the Lagrange multiplier: max(0, λ + rate · (threshold − diversity)).

    The signed violation, not the hinge, so λ falls while the constraint is slack (Stooke et al. 2020, plain I control).
    DivergedError when an input is not finite: max(0, NaN) is 0, which would silently drop the constraint.
    """
    require_finite("the Lagrange multiplier", multiplier)
    require_finite("the diversity that the constraint measures", diversity)
    return max(0.0, multiplier + rate * (threshold - diversity))


def lagrangian_advantage(reward_advantage: Tensor, cost_advantage: Tensor, multiplier: float) -> Tensor:
    """(A_r − λ · (A_c − mean A_c)) / (1 + λ): A_r comes standardised, A_c is centred here; shapes equal."""
    return (reward_advantage - multiplier * (cost_advantage - cost_advantage.mean())) / (1 + multiplier)


def multiplier_from_raw(raw: float) -> float:
    """softplus(raw): the form in which files of the original store the multiplier."""
    return max(raw, 0.0) + math.log1p(math.exp(-abs(raw)))


def multiplier_to_raw(multiplier: float) -> float:
    """The inverse of `multiplier_from_raw` for multiplier > 0. Raises ValueError otherwise."""
    if multiplier <= 0:
        raise ValueError(f"multiplier {multiplier} has no softplus form; it must be above 0")
    return multiplier + math.log(-math.expm1(-multiplier))


def gate_loss(raw_logits: Tensor, weight: float = 0.1) -> Tensor:
    """−weight · mean entropy (nats) of the softmax of `raw_logits` (..., V): what gate training minimises. Scalar."""
    log_probs = raw_logits.log_softmax(-1)
    return weight * (log_probs.exp() * log_probs).sum(-1).mean()
