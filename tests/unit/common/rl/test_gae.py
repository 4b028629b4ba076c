"""GAE equals the sum in its definition, for terminated and truncated episodes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.rl import gae

torch.set_num_threads(1)


def brute_force(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Return the λ-weighted mean of n-step advantages from its definition, one step and one environment at a time."""
    T, B = rewards.shape
    advantages = torch.zeros(T, B, dtype=torch.float64)
    for b in range(B):
        for t in range(T):
            # the steps from t to the end of the episode or of the rollout
            end = t
            while end < T - 1 and not terminated[end, b] and not truncated[end, b]:
                end += 1
            horizon = end - t + 1
            estimates = []
            for n in range(1, horizon + 1):
                last = t + n - 1
                total = sum(gamma**i * float(rewards[t + i, b]) for i in range(n))
                if not terminated[last, b]:
                    total += gamma**n * float(next_values[last, b])
                estimates.append(total - float(values[t, b]))
            weights = [(1 - gae_lambda) * gae_lambda ** (n - 1) for n in range(1, horizon)] + [
                gae_lambda ** (horizon - 1)
            ]
            advantages[t, b] = sum(w * e for w, e in zip(weights, estimates, strict=True))
    return advantages


@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 9),
    envs=st.integers(1, 3),
    gamma=st.sampled_from([0.0, 0.9, 0.99, 1.0]),
    gae_lambda=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
@settings(max_examples=80, deadline=None)
def test_gae_equals_brute_force(seed: int, steps: int, envs: int, gamma: float, gae_lambda: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values, next_values = torch.randn(3, steps, envs, generator=generator, dtype=torch.float64)
    ends = torch.rand(steps, envs, generator=generator)
    terminated, truncated = ends < 0.2, (ends >= 0.2) & (ends < 0.4)
    goes_on = ~(terminated | truncated)[:-1]
    next_values[:-1] = torch.where(goes_on, values[1:], next_values[:-1])
    advantages, returns = gae(rewards, values, next_values, terminated, truncated, gamma=gamma, gae_lambda=gae_lambda)
    expected = brute_force(rewards, values, next_values, terminated, truncated, gamma, gae_lambda)
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns, expected + values)


def test_a_time_limit_bootstraps_and_a_terminal_state_does_not() -> None:
    one, no, yes = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
    cut, _ = gae(one, 0 * one, 10 * one, no, yes, gamma=0.5, gae_lambda=0.9)
    final, _ = gae(one, 0 * one, 10 * one, yes, no, gamma=0.5, gae_lambda=0.9)
    assert (cut.item(), final.item()) == (6.0, 1.0)


def test_nothing_leaks_from_the_next_episode() -> None:
    rewards = torch.tensor([[0.0], [100.0]])
    zeros, no = torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool)
    cut = torch.tensor([[True], [False]])
    advantages, _ = gae(rewards, zeros, zeros, no, cut, gamma=1.0, gae_lambda=1.0)
    assert advantages[0].item() == 0


def test_shapes_that_differ_are_refused() -> None:
    x, flags = torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="the same shape"):
        gae(x, x, torch.zeros(1), flags, flags, gamma=1.0, gae_lambda=1.0)
