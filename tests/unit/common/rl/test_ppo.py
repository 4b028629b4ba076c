"""The PPO update follows the formulas of the paper, and the policy learns."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from common.rl import PPOBatch, explained_variance, ppo_losses, ppo_update, standardise

torch.set_num_threads(1)


class LinearGaussian(nn.Module):
    """A policy simple enough to check by hand: mean = w · o, constant deviation, value = v · o."""

    def __init__(self, cost_critic: bool = False) -> None:
        super().__init__()
        self.mean = nn.Linear(2, 1, bias=False)
        self.critic = nn.Linear(2, 1, bias=False)
        self.cost = nn.Linear(2, 1, bias=False) if cost_critic else None
        self.log_std = nn.Parameter(torch.zeros(1))

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        normal = Normal(self.mean(observation), self.log_std.exp())
        cost = None if self.cost is None else self.cost(observation)[:, 0]
        return normal.log_prob(action)[:, 0], normal.entropy()[:, 0], self.critic(observation)[:, 0], cost


def _batch(policy: LinearGaussian, n: int = 40, shift: float = 0.0) -> PPOBatch:
    generator = torch.Generator().manual_seed(1)
    observation, action = torch.randn(n, 2, generator=generator), torch.randn(n, 1, generator=generator)
    with torch.no_grad():
        log_prob = policy.evaluate(observation, action)[0] + shift * torch.randn(n, generator=generator)
    advantage, returns = torch.randn(2, n, generator=generator)
    return PPOBatch(observation, action, log_prob, standardise(advantage), returns)


def test_losses_equal_a_plain_computation() -> None:
    torch.manual_seed(0)
    policy = LinearGaussian(cost_critic=True)
    batch = replace(_batch(policy, shift=0.5), cost_returns=torch.linspace(0, 1, 40))
    found = ppo_losses(policy, batch, clip_range=0.2, value_coef=0.5, entropy_coef=0.03)
    surrogate = kl = clipped = value_error = cost_error = 0.0
    assert policy.cost is not None and batch.cost_returns is not None
    for i in range(40):
        o, a = batch.observation[i], batch.action[i]
        mean = float(policy.mean.weight.detach()[0] @ o)
        log_prob = -0.5 * (float(a) - mean) ** 2 - 0.5 * math.log(2 * math.pi)
        r, adv = math.exp(log_prob - float(batch.log_prob[i])), float(batch.advantage[i])
        surrogate -= min(r * adv, min(max(r, 0.8), 1.2) * adv) / 40
        kl += (r - 1 - math.log(r)) / 40
        clipped += (abs(r - 1) > 0.2) / 40
        value_error += (float(policy.critic.weight.detach()[0] @ o) - float(batch.returns[i])) ** 2 / 40
        cost_error += (float(policy.cost.weight.detach()[0] @ o) - float(batch.cost_returns[i])) ** 2 / 40
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    expected = surrogate + 0.5 * value_error + 0.5 * cost_error - 0.03 * entropy
    assert found.policy.item() == pytest.approx(surrogate, abs=1e-5)
    assert found.value.item() == pytest.approx(value_error, rel=1e-5)
    assert found.cost_value.item() == pytest.approx(cost_error, rel=1e-5)
    assert found.entropy.item() == pytest.approx(entropy, rel=1e-5)
    assert found.approx_kl.item() == pytest.approx(kl, abs=1e-5)
    assert found.clip_fraction.item() == pytest.approx(clipped, abs=1e-6)
    assert 0 < clipped < 1
    assert found.total.item() == pytest.approx(expected, abs=1e-5)


def test_the_ratio_is_one_before_the_first_step() -> None:
    torch.manual_seed(0)
    policy = LinearGaussian()
    losses = ppo_losses(policy, _batch(policy), clip_range=0.2, value_coef=0.5, entropy_coef=0.0)
    assert losses.approx_kl.item() == pytest.approx(0, abs=1e-6)
    assert losses.clip_fraction.item() == 0
    assert losses.policy.item() == pytest.approx(0, abs=1e-6), "the mean of standardised advantages is 0"


def test_a_clipped_ratio_gives_no_gradient() -> None:
    torch.manual_seed(0)
    policy = LinearGaussian()
    batch = _batch(policy)
    far = replace(batch, log_prob=batch.log_prob - 1.0, advantage=torch.ones(40))
    torch.autograd.backward(ppo_losses(policy, far, clip_range=0.2, value_coef=0.0, entropy_coef=0.0).total)
    assert policy.mean.weight.grad is not None
    assert policy.mean.weight.grad.abs().max() == 0


def test_standardised_advantages_have_mean_zero_and_unit_unbiased_deviation() -> None:
    found = standardise(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert found.mean().item() == pytest.approx(0, abs=1e-6)
    assert found.std().item() == pytest.approx(1, abs=1e-6)
    assert standardise(torch.tensor([4.0])).tolist() == [0.0]
    assert standardise(torch.full((5,), 3.0)).tolist() == [0.0] * 5


def test_explained_variance_of_perfect_useless_and_constant_values() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns).item() == 1
    assert explained_variance(torch.zeros(3), returns).item() == pytest.approx(0, abs=1e-6)
    assert explained_variance(-10 * returns, returns).item() == -1
    assert explained_variance(returns, torch.full((3,), 2.0)).item() == 0


def test_minibatches_cover_the_rollout_once_per_epoch() -> None:
    torch.manual_seed(0)
    policy = LinearGaussian()
    seen: list[int] = []
    batch = _batch(policy, n=10)
    take = PPOBatch.take

    class Recording(PPOBatch):
        def take(self, index: Tensor) -> PPOBatch:
            seen.extend(index.tolist())
            return take(self, index)

    recording = Recording(batch.observation, batch.action, batch.log_prob, batch.advantage, batch.returns)
    metrics = _update(policy, recording, epochs=3, minibatch_size=4)
    assert sorted(seen) == sorted(list(range(10)) * 3)
    assert seen[:10] != seen[10:20], "every epoch has its own order"
    assert all(math.isfinite(value) for value in metrics.values())


def _update(
    policy: LinearGaussian, batch: PPOBatch, *, epochs: int, minibatch_size: int, lr: float = 0.05
) -> dict[str, float]:
    return ppo_update(
        policy,
        torch.optim.Adam(policy.parameters(), lr=lr),
        batch,
        epochs=epochs,
        minibatch_size=minibatch_size,
        clip_range=0.2,
        value_coef=0.5,
        entropy_coef=0.0,
        max_grad_norm=0.5,
        generator=torch.Generator().manual_seed(3),
    )


def test_the_policy_learns_the_rewarded_action() -> None:
    # The reward is −(a − o₀)², so the best weights are w = (1, 0).
    torch.manual_seed(0)
    policy = LinearGaussian()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        observation = torch.randn(256, 2, generator=generator)
        with torch.no_grad():
            noise = torch.randn(256, 1, generator=generator)
            action = policy.mean(observation) + policy.log_std.exp() * noise
            log_prob, _, value, _ = policy.evaluate(observation, action)
        reward = -((action[:, 0] - observation[:, 0]) ** 2)
        batch = PPOBatch(observation, action, log_prob, standardise(reward - value), reward)
        ppo_update(
            policy,
            optimizer,
            batch,
            epochs=4,
            minibatch_size=64,
            clip_range=0.2,
            value_coef=0.5,
            entropy_coef=0.0,
            max_grad_norm=0.5,
            generator=generator,
        )
    torch.testing.assert_close(policy.mean.weight.detach(), torch.tensor([[1.0, 0.0]]), atol=0.15, rtol=0)
    assert policy.log_std.item() < -0.5, "noise lowers the reward here, so the deviation shrinks"


def test_the_updates_end_before_the_step_whose_divergence_is_too_large() -> None:
    """The policy equals one that was updated with the minibatches before the first whose KL exceeds 1.5 · target."""

    def updated(policy: LinearGaussian, **options: Any) -> dict[str, float]:
        return ppo_update(
            policy,
            torch.optim.Adam(policy.parameters(), lr=0.05),
            batch,
            minibatch_size=10,
            clip_range=0.2,
            value_coef=0.5,
            entropy_coef=0.0,
            max_grad_norm=0.5,
            generator=torch.Generator().manual_seed(3),
            **options,
        )

    torch.manual_seed(0)
    start = LinearGaussian()
    batch = _batch(start)
    # Follow the same updates by hand, and note the divergence of each minibatch before its step.
    by_hand, divergences, states = deepcopy(start), [], []
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        for index in torch.split(torch.randperm(40, generator=generator), 10):
            part = batch.take(index)
            with torch.no_grad():
                log_ratio = by_hand.evaluate(part.observation, part.action)[0] - part.log_prob
                divergences.append(float((log_ratio.exp() - 1 - log_ratio).mean()))
            states.append(deepcopy(by_hand.state_dict()))
            losses = ppo_losses(by_hand, part, clip_range=0.2, value_coef=0.5, entropy_coef=0.0)
            optimizer.zero_grad()
            torch.autograd.backward(losses.total)
            nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
            optimizer.step()
    target = sorted(divergences)[8] / 1.5
    first = next(i for i, divergence in enumerate(divergences) if divergence > 1.5 * target)
    assert 2 < first < 16
    stopped = deepcopy(start)
    found = updated(stopped, epochs=4, target_kl=target)
    for name, value in stopped.state_dict().items():
        torch.testing.assert_close(value, states[first][name])
    assert found["approx_kl"] == pytest.approx(sum(divergences[:first]) / first, abs=1e-6)
    free = deepcopy(start)
    updated(free, epochs=4)
    assert not torch.equal(free.mean.weight, stopped.mean.weight)
