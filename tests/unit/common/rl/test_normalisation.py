"""Running statistics equal those of all values at once; scaled rewards equal a computation from their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.config import PolicyConfig
from common.controller import GatingPolicy, PackedActor
from common.rl.normalisation import REWARD_CLIP, RewardScale, RunningMoments

RANDOM = np.random.default_rng(4)


def test_moments_of_batches_equal_those_of_all_values() -> None:
    values = RANDOM.normal(3.0, [1.0, 5.0, 0.0], size=(500, 3))
    moments = RunningMoments(3)
    for part in np.split(values, [1, 20, 300]):
        moments.update(torch.from_numpy(part))
    assert moments.count == 500
    np.testing.assert_allclose(moments.mean.numpy(), values.mean(axis=0))
    np.testing.assert_allclose(moments.variance.numpy(), values.var(axis=0), atol=1e-12)
    restored = RunningMoments(3)
    restored.load_state_dict(moments.state_dict())
    restored.update(torch.ones(4, 3))
    np.testing.assert_allclose(restored.mean.numpy(), np.vstack([values, np.ones((4, 3))]).mean(axis=0))
    np.testing.assert_allclose(moments.mean.numpy(), values.mean(axis=0), err_msg="the copy does not share memory")


def test_rewards_are_divided_by_the_deviation_of_all_discounted_returns() -> None:
    gamma, T, B = 0.9, 12, 3
    rewards = RANDOM.normal(0.2, 1.0, size=(2, T, B))
    ended = RANDOM.random((2, T, B)) < 0.2
    scale = RewardScale(B, gamma)
    found = [scale.scale(torch.from_numpy(r).float(), torch.from_numpy(e)) for r, e in zip(rewards, ended, strict=True)]
    # The return of a step is the discounted sum of its episode's rewards up to this step, also across rollouts.
    whole, ends, returns = rewards.reshape(-1, B), ended.reshape(-1, B), []
    for b in range(B):
        start = 0
        for t in range(len(whole)):
            returns.append(sum(gamma ** (t - k) * whole[k, b] for k in range(start, t + 1)))
            start = t + 1 if ends[t, b] else start
    first = [returns[b * 2 * T + t] for b in range(B) for t in range(T)]
    np.testing.assert_allclose(found[0].numpy(), rewards[0] / np.sqrt(np.var(first) + 1e-8), rtol=1e-5)
    np.testing.assert_allclose(found[1].numpy(), rewards[1] / np.sqrt(np.var(returns) + 1e-8), rtol=1e-5)
    assert scale.scale(torch.full((T, B), 1e9), torch.zeros(T, B, dtype=torch.bool)).max() <= REWARD_CLIP


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
def test_a_normalising_policy_equals_a_plain_one_that_is_given_normalised_values(distribution: str) -> None:
    torch.manual_seed(2)
    plain = GatingPolicy(PolicyConfig.model_validate({"distribution": distribution}))
    config = PolicyConfig.model_validate({"distribution": distribution, "normalise_observations": True})
    policy = GatingPolicy(config)
    policy.load_state_dict(plain.state_dict(), strict=False)
    observation, uniform = 5 + 3 * torch.randn(30, 64), torch.rand(30)
    mean, variance = observation.mean(0), observation.var(0)
    with torch.no_grad():
        torch.testing.assert_close(policy(observation), plain(observation.clamp(-10, 10)))
        policy.set_observation_scale(mean, variance)
        expected = ((observation - mean) / (variance + 1e-8).sqrt()).clamp(-10, 10)
        torch.testing.assert_close(policy(observation).first, plain(expected).first)
        sampled = torch.ones(30, dtype=torch.bool)
        packed = PackedActor(policy).act_rows(observation, uniform, sampled)
        torch.testing.assert_close(packed, policy.act_rows(observation, uniform, sampled), atol=1e-5, rtol=0)
