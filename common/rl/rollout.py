"""Collects one rollout: T steps of B environments under a policy, kept on the device until it is complete.

At the end, the critic evaluates in one pass the observation that follows each step in the same episode. So GAE can also
bootstrap from truncated steps and from the last step of the rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.controller import GatingPolicy
from common.model.transfer import to_device
from common.rl.environment import DecodingEnvironment
from common.rl.gae import gae
from common.rl.group_advantages import group_advantages, rewards_to_go
from common.rl.ppo import PPOBatch, standardise
from common.rl.schedules import lagrangian_advantage


@dataclass(frozen=True)
class Rollout:
    """T steps of B environments. Tensors have shape (T, B) unless noted otherwise."""

    observation: Tensor
    """Shape (T, B, 64)."""
    action: Tensor
    """Shape (T, B, 1)."""
    log_prob: Tensor
    value: Tensor
    next_value: Tensor
    components: Tensor
    """Shape (T, B, 5), before weighting."""
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    active: Tensor | None = None
    """With groups: whether the first episode of the sequence has not ended before the step; None stands for all."""
    cost_value: Tensor | None = None
    """Values of the cost critic; None without one."""
    next_cost_value: Tensor | None = None

    @property
    def ended(self) -> Tensor:
        """Whether the episode ended with the step, (T, B)."""
        ended = self.terminated | self.truncated
        return ended if self.active is None else ended & self.active

    def kept(self, values: Tensor) -> Tensor:
        """Return the values of the active steps, (N, …), of `values` (T, B, …).

        With groups, this waits for the device.
        """
        flat = values.flatten(0, 1)
        return flat if self.active is None else flat[self.active.flatten()]

    def group_batch(self, *, group_size: int, gamma: float) -> tuple[PPOBatch, Tensor, Tensor]:
        """Like `batch`, with group-relative advantages of the active steps. The returns are the rewards-to-go."""
        assert self.active is not None
        returns = rewards_to_go(self.reward, self.active, gamma)
        advantage = group_advantages(returns, self.active, group_size)
        returns = self.kept(returns)
        batch = PPOBatch(
            self.kept(self.observation),
            self.kept(self.action),
            self.kept(self.log_prob),
            standardise(self.kept(advantage)),
            returns,
        )
        return batch, self.kept(self.value), returns

    def batch(
        self,
        *,
        gamma: float,
        gae_lambda: float,
        reward: Tensor | None = None,
        cost: Tensor | None = None,
        multiplier: float = 0.0,
    ) -> tuple[PPOBatch, Tensor, Tensor]:
        """Return the flattened rollout with standardised advantages, and separately its values and returns (T·B,).

        `reward` (T, B) replaces the collected rewards, for example by scaled ones. With `cost` (T, B), the advantages
        of the cost, weighted by `multiplier`, are subtracted (`lagrangian_advantage`).
        """

        def estimate(reward: Tensor, value: Tensor, next_value: Tensor) -> tuple[Tensor, Tensor]:
            return gae(reward, value, next_value, self.terminated, self.truncated, gamma=gamma, gae_lambda=gae_lambda)

        advantage, returns = estimate(self.reward if reward is None else reward, self.value, self.next_value)
        advantage, cost_returns = standardise(advantage), None
        if cost is not None:
            assert self.cost_value is not None and self.next_cost_value is not None
            cost_advantage, cost_returns = estimate(cost, self.cost_value, self.next_cost_value)
            advantage = lagrangian_advantage(advantage, cost_advantage, multiplier)
        batch = PPOBatch(
            self.observation.flatten(0, 1),
            self.action.flatten(0, 1),
            self.log_prob.flatten(),
            advantage.flatten(),
            returns.flatten(),
            None if cost_returns is None else cost_returns.flatten(),
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
    group_size: int | None = None,
) -> Rollout | None:
    """Collect `steps` steps; the reward is the sum of the components weighted by `weights` (5,).

    With `group_size`, all sequences start new episodes, that many with each prompt, and only these episodes count.

    `keep_going(t)` is called before step t; if it returns False, the partial rollout is discarded and None returned.
    `generator` is on the environment's device and samples the actions.
    """
    if group_size is None:
        environment.refill(steps)
    else:
        environment.restart_groups(group_size)
    columns: dict[str, list[Tensor]] = {name: [] for name in _COLUMNS}
    for t in range(steps):
        if not keep_going(t):
            return None
        observation = environment.observation
        decision = policy.act(observation, generator=generator)
        transition = environment.step(decision.action)
        values = (
            observation,
            decision.action,
            decision.log_prob,
            decision.value,
            transition.components,
            transition.next_observation,
            transition.terminated,
            transition.truncated,
        )
        for name, tensor in zip(_COLUMNS, values, strict=True):
            columns[name].append(tensor)
    stacked = {name: torch.stack(tensors) for name, tensors in columns.items()}
    next_observation = stacked.pop("next_observation")
    following = policy(next_observation.flatten(0, 1))
    active: Tensor | None = None
    cost_value: Tensor | None = None
    next_cost_value: Tensor | None = None
    if following.cost_value is not None:
        cost_value = policy(stacked["observation"].flatten(0, 1)).cost_value.view(steps, -1)
        next_cost_value = following.cost_value.view(steps, -1)
    reward = stacked["components"] @ to_device(torch.tensor(list(weights)), next_observation.device)
    if group_size is not None:
        ended = stacked["terminated"] | stacked["truncated"]
        active = ended.cumsum(0) - ended.long() == 0
        reward = torch.where(active, reward, 0.0)
    return Rollout(
        **stacked,
        next_value=following.value.view(steps, -1),
        reward=reward,
        active=active,
        cost_value=cost_value,
        next_cost_value=next_cost_value,
    )


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
    """Moving average of the undiscounted reward sums of episodes, initialised with the first finished episode."""

    rate: float = 0.05
    """Weight of the newest episode in the average."""
    value: float | None = None
    """The average; None before the first finished episode."""
    finished: int = 0
    """Number of finished episodes."""
    running: list[float] | None = None
    """Reward sum of the unfinished episode of each environment."""

    def update(self, reward: Tensor, ended: Tensor) -> None:
        """Add a rollout, `reward` and `ended` (T, B).

        Episodes that end in the same step are added in the order of environments.
        """
        rewards, ends = reward.tolist(), ended.tolist()
        running = self.running if self.running is not None else [0.0] * len(rewards[0])
        for step_rewards, step_ends in zip(rewards, ends, strict=True):
            for b, (reward_value, episode_ended) in enumerate(zip(step_rewards, step_ends, strict=True)):
                running[b] += reward_value
                if episode_ended:
                    self.value = (
                        running[b] if self.value is None else self.value + self.rate * (running[b] - self.value)
                    )
                    self.finished += 1
                    running[b] = 0.0
        self.running = running
