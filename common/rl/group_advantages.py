"""Group-relative advantages: several episodes of one prompt are each other's baseline (GRPO, Shao et al. 2024).

The advantage of a step is its reward-to-go minus the mean reward-to-go at the same step of the group's episodes. No
critic is needed, and the difficulty of the prompt cancels out. Rewards exist for every token, so the reward-to-go
replaces the return of the whole episode, which would blame a step for what came before it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rewards_to_go(rewards: Tensor, active: Tensor, gamma: float) -> Tensor:
    """Return the discounted sum of the rewards from each step to the end of its episode, (T, B).

    `rewards` (T, B) and `active` (T, B) bool begin with the first step of an episode in every column; `active` is false
    after its end.
    """
    result = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        running = torch.where(active[t], rewards[t] + gamma * running, 0.0)
        result[t] = running
    return result


def group_advantages(returns: Tensor, active: Tensor, group_size: int) -> Tensor:
    """Return `returns` (T, B) minus their means over the active episodes of the group at the same step, (T, B).

    Columns 0 to `group_size` − 1 are the first group, and so on. Inactive steps have the advantage 0, and so has a step
    at which only one episode of the group is still active. Raises ValueError unless B is a multiple of `group_size`.
    """
    T, B = returns.shape
    if B % group_size:
        raise ValueError(f"{B} episodes cannot be divided into groups of {group_size}")
    values = torch.where(active, returns, 0.0).view(T, -1, group_size)
    count = active.view(T, -1, group_size).sum(2, keepdim=True).clamp_min(1)
    centred = values - values.sum(2, keepdim=True) / count
    return torch.where(active, centred.view(T, B), 0.0)
