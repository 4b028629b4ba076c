"""Generalised advantage estimation over T steps of B environments (Schulman et al. 2016, eq. 16).

A terminated step has no future reward. A truncated step (time limit) ends the sum, but bootstraps from the value of the
observation that would have followed in the same episode. `common.rl.ppo.standardise` standardises the advantages.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns, both (T, B).

    All inputs have shape (T, B). `values[t]` = V(o_t). `next_values[t]` is the value of the observation after step t in
    the same episode, even if step t truncated the episode; if step t terminated the episode, this value is ignored.
    `terminated`, `truncated` are bool.

    δ_t = r_t + γ · V(next o_t) · [not terminated] − V(o_t);  A_t = δ_t + γ · λ · [episode continues] · A_{t+1};
    return = A_t + V(o_t). Raises ValueError if shapes differ.
    """
    shapes = {tuple(x.shape) for x in (rewards, values, next_values, terminated, truncated)}
    if len(shapes) != 1:
        raise ValueError(f"all inputs need the same shape (T, B), found {sorted(shapes)}")
    deltas = rewards + gamma * next_values * (~terminated) - values
    carry = gamma * gae_lambda * (~(terminated | truncated)).to(rewards.dtype)
    advantages = torch.empty_like(deltas)
    running = torch.zeros_like(deltas[0])
    for t in range(deltas.shape[0] - 1, -1, -1):
        running = deltas[t] + carry[t] * running
        advantages[t] = running
    return advantages, advantages + values
