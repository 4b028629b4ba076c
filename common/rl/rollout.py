"""One rollout: T steps of B environments under a policy, kept on the device until it is whole.

The values of the observations that follow each step are computed in one pass at the end, so that every step, whether it
is the last of the rollout, truncated or neither, bootstraps from its own successor. Leaves out: the update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.controller import GatingPolicy
from common.rl.environment import DecodingEnvironment
from common.rl.gae import gae
from common.rl.ppo import PPOBatch, standardise


@dataclass(frozen=True)
class Rollout:
    """T steps of B environments; (T, B) unless noted."""

    observation: Tensor
    """(T, B, 64)"""
    action: Tensor
    """(T, B, 1)"""
    log_prob: Tensor
    value: Tensor
    next_value: Tensor
    components: Tensor
    """(T, B, 5), unweighted."""
    reward: Tensor
    terminated: Tensor
    truncated: Tensor

    def batch(self, *, gamma: float, gae_lambda: float) -> tuple[PPOBatch, Tensor, Tensor]:
        """Flattened for PPO with standardised advantages; also values and returns (T·B,)."""
        advantage, returns = gae(
            self.reward,
            self.value,
            self.next_value,
            self.terminated,
            self.truncated,
            gamma=gamma,
            gae_lambda=gae_lambda,
        )
        batch = PPOBatch(
            self.observation.flatten(0, 1),
            self.action.flatten(0, 1),
            self.log_prob.flatten(),
            standardise(advantage).flatten(),
            returns.flatten(),
        )
        return batch, self.value.flatten(), returns.flatten()


@torch.no_grad()
def collect_rollout(
    environment: DecodingEnvironment,
    policy: GatingPolicy,
    steps: int,
    *,
    weights: Sequence[float],
    generator: torch.Generator,
    keep_going: Callable[[int], bool] = lambda _: True,
) -> Rollout | None:
    """Roll `steps` steps out; `weights` (5) make the reward of the components.

    `keep_going(t)` is asked before step t; when it says no the partial rollout is dropped and None returned.
    `generator` lives on the environment's device and draws the actions.
    """
    environment.refill(steps)
    columns: dict[str, list[Tensor]] = {name: [] for name in _COLUMNS}
    for t in range(steps):
        if not keep_going(t):
            return None
        seen = environment.observation
        acted = policy.act(seen, generator=generator)
        moved = environment.step(acted.action)
        row = (
            seen,
            acted.action,
            acted.log_prob,
            acted.value,
            moved.components,
            moved.next_observation,
            moved.terminated,
            moved.truncated,
        )
        for name, tensor in zip(_COLUMNS, row, strict=True):
            columns[name].append(tensor)
    stacked = {name: torch.stack(tensors) for name, tensors in columns.items()}
    following = stacked.pop("next_observation")
    next_value = policy(following.flatten(0, 1)).value.view(steps, -1)
    reward = stacked["components"] @ torch.tensor(list(weights), device=following.device)
    return Rollout(**stacked, next_value=next_value, reward=reward)


_COLUMNS = (
    "observation",
    "action",
    "log_prob",
    "value",
    "components",
    "next_observation",
    "terminated",
    "truncated",
)


@dataclass
class EpisodeMean:
    """Mean episode reward: a moving average of undiscounted episode sums, begun by the first finished episode."""

    rate: float = 0.05
    value: float | None = None
    finished: int = 0
    """Episodes so far."""
    running: list[float] | None = None
    """Sums of the unfinished episodes, one per environment."""

    def update(self, reward: Tensor, ended: Tensor) -> None:
        """Take in a rollout, `reward` and `ended` (T, B), in the order of time, then of environments."""
        rewards, ends = reward.tolist(), ended.tolist()
        running = self.running if self.running is not None else [0.0] * len(rewards[0])
        for row, flags in zip(rewards, ends, strict=True):
            for b, (gain, over) in enumerate(zip(row, flags, strict=True)):
                running[b] += gain
                if over:
                    self.value = (
                        running[b] if self.value is None else self.value + self.rate * (running[b] - self.value)
                    )
                    self.finished += 1
                    running[b] = 0.0
        self.running = running
