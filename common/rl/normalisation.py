"""Running statistics that scale observations and rewards of a controller training.

Observations are scaled by their mean and deviation over all finished rollouts (`GatingPolicy.set_observation_scale`).
Rewards are divided by the deviation of the discounted returns, as in VecNormalize of Stable-Baselines3. The statistics
are part of a checkpoint, so that a training can be resumed exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

REWARD_CLIP = 10.0
"""Largest absolute value of a scaled reward."""
_EPSILON = 1e-8


class RunningMoments:
    """Count, mean and population variance of all values so far, for each feature, in float64.

    Batches are merged by the formula of Chan et al. (1979).
    """

    def __init__(self, features: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean = torch.zeros(features, dtype=torch.float64, device=device)
        self.variance = torch.zeros(features, dtype=torch.float64, device=device)

    def update(self, values: Tensor) -> None:
        """Add N values of each feature, `values` (N, features)."""
        values = values.double()
        added, total = len(values), self.count + len(values)
        difference = values.mean(0) - self.mean
        squares = self.variance * self.count + values.var(0, correction=0) * added
        self.variance = (squares + difference.square() * (self.count * added / total)) / total
        self.mean = self.mean + difference * (added / total)
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the statistics."""
        return {"count": self.count, "mean": self.mean.clone(), "variance": self.variance.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a result of `state_dict`."""
        self.count = int(state["count"])
        self.mean = state["mean"].to(self.mean.device, copy=True)
        self.variance = state["variance"].to(self.variance.device, copy=True)


class RewardScale:
    """Divides rewards by the deviation of the discounted returns of B environments, including the newest rollout."""

    def __init__(self, num_envs: int, gamma: float, device: torch.device | str = "cpu") -> None:
        self.gamma = gamma
        self.returns = torch.zeros(num_envs, dtype=torch.float64, device=device)
        """The discounted sum of the rewards of each unfinished episode so far."""
        self.moments = RunningMoments(1, device)

    def scale(self, reward: Tensor, ended: Tensor) -> Tensor:
        """Add a rollout, `reward` and `ended` (T, B), and return its scaled rewards (T, B)."""
        found = []
        for step_reward, step_ended in zip(reward.double(), ended, strict=True):
            self.returns = self.returns * self.gamma + step_reward
            found.append(self.returns)
            self.returns = self.returns.masked_fill(step_ended, 0.0)
        self.moments.update(torch.cat(found)[:, None])
        deviation = (self.moments.variance + _EPSILON).sqrt()
        return (reward / deviation.to(reward.dtype)).clamp(-REWARD_CLIP, REWARD_CLIP)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the statistics and of the unfinished returns."""
        return {"returns": self.returns.clone(), "moments": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a result of `state_dict`."""
        self.returns = state["returns"].to(self.returns.device, copy=True)
        self.moments.load_state_dict(state["moments"])
