"""The coefficients that a controller training adapts from one iteration to the next.

These are the entropy coefficient, the diversity weight and the Lagrange multiplier of the constraint. `Controls` holds
them and is part of a checkpoint. The formulas are in `common.rl.schedules`. Rates of entropy and diversity apply per
128 transitions, those of the multiplier per iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.config import REWARD_COMPONENTS, RLConfig
from common.rl import schedules
from common.rl.rewards import reward_weights

DIVERSITY = REWARD_COMPONENTS.index("diversity")


@dataclass
class Controls:
    """The adapted coefficients of a training."""

    entropy_coef: float
    """Weight of the entropy bonus in the next update. The linear schedule does not use it."""
    diversity_weight: float
    """Weight of the diversity term in the next rollout."""
    multiplier: schedules.PidMultiplier
    """Multiplier of the constraint."""

    @classmethod
    def initial(cls, config: RLConfig) -> Controls:
        """Return the coefficients before the first iteration."""
        ppo, constraint = config.ppo, config.constraint
        entropy_coef = min(max(ppo.entropy_coef, ppo.entropy_coef_min), ppo.entropy_coef_max)
        multiplier = schedules.PidMultiplier(constraint.multiplier_init, constraint.multiplier_init)
        return cls(entropy_coef, config.reward.diversity_weight, multiplier)

    def weights(self, config: RLConfig) -> tuple[float, ...]:
        """Return the weights of the reward components (5,) in the next rollout."""
        weights = reward_weights(config.reward)
        if config.constraint.mode == "lagrangian":
            return schedules.constrained_weights(weights)
        if config.diversity_homeostasis.target is None:
            return weights
        return tuple(self.diversity_weight if i == DIVERSITY else weight for i, weight in enumerate(weights))

    def entropy_coef_now(self, config: RLConfig, progress: float) -> float:
        """Return the entropy coefficient of an update at `progress` in [0, 1]."""
        ppo = config.ppo
        if ppo.entropy_schedule == "linear":
            return schedules.linear_schedule(ppo.entropy_coef, ppo.entropy_coef_final, progress)
        return self.entropy_coef

    def adapt_diversity_weight(self, config: RLConfig, diversity: float, transitions: int) -> None:
        """Adapt the weight to the mean diversity of a rollout."""
        c = config.diversity_homeostasis
        if c.target is None or config.constraint.mode == "lagrangian":
            return
        self.diversity_weight = schedules.diversity_homeostasis(
            self.diversity_weight,
            diversity,
            target=c.target,
            baseline=config.reward.diversity_weight,
            release_rate=c.release_rate,
            decay_rate=c.decay_rate,
            low=c.weight_min,
            high=c.weight_max,
            times=_applications(transitions),
        )

    def adapt_multiplier(self, config: RLConfig, diversity: float) -> None:
        """Adapt the multiplier to the mean diversity of a rollout."""
        c = config.constraint
        if c.mode == "lagrangian":
            self.multiplier.update(
                c.diversity_threshold - diversity,
                integral=c.multiplier_rate,
                proportional=c.multiplier_proportional,
                derivative=c.multiplier_derivative,
            )

    def adapt_entropy_coef(self, config: RLConfig, policy_entropy: float, transitions: int) -> None:
        """Adapt the entropy coefficient to the mean policy entropy (nats) of an update."""
        ppo = config.ppo
        if ppo.entropy_schedule == "homeostasis":
            self.entropy_coef = schedules.entropy_homeostasis(
                self.entropy_coef,
                policy_entropy,
                target=ppo.policy_entropy_target,
                baseline=ppo.entropy_coef,
                release_rate=ppo.entropy_release_rate,
                decay_rate=ppo.entropy_decay_rate,
                low=ppo.entropy_coef_min,
                high=ppo.entropy_coef_max,
                times=_applications(transitions),
            )
        elif ppo.entropy_schedule == "integral":
            self.entropy_coef = schedules.integral_control(
                self.entropy_coef,
                ppo.policy_entropy_target - policy_entropy,
                rate=ppo.entropy_integral_rate,
                low=ppo.entropy_coef_min,
                high=ppo.entropy_coef_max,
                times=_applications(transitions),
            )


def _applications(transitions: int) -> int:
    """Return how often a rate per 128 transitions is applied after a rollout of `transitions`."""
    return max(1, round(transitions / schedules.TRANSITIONS_PER_UPDATE))
