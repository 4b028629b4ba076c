"""Pure functions that compute the schedules and adaptive coefficients of controller training.

`common.rl.controls` applies them in a training. The gate loss is implemented and tested, but no training uses it yet.
The rates of adaptive coefficients apply per 128 transitions; for a larger rollout, `times` applies them repeatedly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from common.errors import require_finite
from common.rl.rewards import without_components

TRANSITIONS_PER_UPDATE = 128
"""Number of transitions per application of an adaptive rate."""


def linear_schedule(start: float, end: float, progress: float) -> float:
    """Interpolate from `start` at progress 0 to `end` at progress 1; progress is clamped to [0, 1]."""
    share = min(max(progress, 0.0), 1.0)
    return start + (end - start) * share


def decayed_learning_rate(base: float, progress: float) -> float:
    """Return a learning rate that falls linearly from `base` at progress 0 to 10 % of `base` at progress 1."""
    return linear_schedule(base, 0.1 * base, progress)


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
    """Return the next value of a coefficient that rises while `measured` < `target` and decays towards `baseline`.

    If measured < target: value += release_rate · (target − measured). Then value = decay_rate · value + (1 −
    decay_rate) · baseline, clamped to [low, high]. This is done `times` times with the same measurement. Raises
    DivergedError if an input is not finite, because clamping would turn it into `low` or `high`, which look valid.
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
    """Return the next entropy coefficient, given the mean policy entropy (nats) of the last update."""
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
    """Return the diversity weight of the next rollout, given the mean diversity reward of the last one."""
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


def integral_control(value: float, error: float, *, rate: float, low: float, high: float, times: int = 1) -> float:
    """Return the next value of a coefficient that changes until `error` is 0: value + rate · error, clamped.

    The clamp to [low, high] also bounds the sum of past errors, so the coefficient returns at once when the error
    changes its sign. Raises DivergedError if an input is not finite.
    """
    require_finite("the controlled coefficient", value)
    require_finite("the error that controls a coefficient", error)
    return min(max(value + times * rate * error, low), high)


def constrained_weights(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Return the reward weights of the constrained mode.

    The weights of diversity and repetition are 0; all other weights are scaled so that their sum is 1.

    Raises ValueError if no weight above 0 remains.
    """
    kept = without_components(weights, "diversity", "repetition")
    return tuple(weight / sum(kept) for weight in kept)


def hinge_cost(diversity: Tensor, threshold: float = 0.55) -> Tensor:
    """Return the cost of each step, max(0, threshold − diversity), for a tensor of any shape.

    The cost critic predicts the sum of these costs over the rest of an episode.
    """
    return (threshold - diversity).clamp_min(0)


@dataclass
class PidMultiplier:
    """A Lagrange multiplier λ that a PID controller adapts to the signed violation of a constraint.

    Stooke et al. 2020, "Responsive safety in reinforcement learning by PID Lagrangian methods", algorithm 2. The
    integral part alone is projected gradient ascent: max(0, λ + rate · violation). The violation is signed (not clipped
    at 0), so λ falls while the constraint is satisfied.
    """

    value: float
    """The multiplier λ, at least 0."""
    integral: float
    """The integral part, at least 0."""
    violation: float | None = None
    """The violation at the last update."""

    def update(self, violation: float, *, integral: float, proportional: float, derivative: float) -> None:
        """Adapt λ to `violation`, the cost minus its limit, which is negative while the constraint is satisfied.

        Raises DivergedError if it or λ is not finite: max(0, NaN) is 0, which would drop the constraint.
        """
        require_finite("the Lagrange multiplier", self.integral)
        require_finite("the measured violation of the constraint", violation)
        self.integral = max(0.0, self.integral + integral * violation)
        growth = 0.0 if self.violation is None else max(0.0, violation - self.violation)
        self.value = max(0.0, proportional * violation + self.integral + derivative * growth)
        self.violation = violation


def lagrangian_advantage(reward_advantage: Tensor, cost_advantage: Tensor, multiplier: float) -> Tensor:
    """Return (A_r − λ · (A_c − mean A_c)) / (1 + λ) for standardised A_r and any A_c of the same shape."""
    return (reward_advantage - multiplier * (cost_advantage - cost_advantage.mean())) / (1 + multiplier)


def multiplier_from_raw(raw: float) -> float:
    """Return softplus(raw), the multiplier λ; files of the original store the value `raw`."""
    return max(raw, 0.0) + math.log1p(math.exp(-abs(raw)))


def multiplier_to_raw(multiplier: float) -> float:
    """Return the inverse of `multiplier_from_raw`. Raises ValueError unless `multiplier` is above 0."""
    if multiplier <= 0:
        raise ValueError(f"multiplier {multiplier} has no softplus form; it must be above 0")
    return multiplier + math.log(-math.expm1(-multiplier))


def gate_loss(raw_logits: Tensor, weight: float = 0.1) -> Tensor:
    """Return −weight · mean entropy (nats) of softmax(`raw_logits`), the scalar loss of gate training.

    `raw_logits` has shape (..., V).
    """
    log_probs = raw_logits.log_softmax(-1)
    return weight * (log_probs.exp() * log_probs).sum(-1).mean()
