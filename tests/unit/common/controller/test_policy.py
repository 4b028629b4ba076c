"""The policy agrees with numbers of the original implementation, numerical integrals and torch's distributions."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch.distributions import Beta

from common.config import PolicyConfig
from common.controller import GatingPolicy, PackedActor, load_policy
from tests.paths import PARITY

TENSORS = load_file(PARITY / "reference.safetensors")


@pytest.mark.parametrize(("file", "prefix"), [("policy.pth", "policy"), ("policy_capped.pth", "capped")])
def test_outputs_equal_the_original(file: str, prefix: str) -> None:
    policy = load_policy(PARITY / file)
    observations, actions = TENSORS[f"{prefix}_observations"], TENSORS[f"{prefix}_actions"]
    with torch.no_grad():
        output = policy(observations)
        evaluation = policy.evaluate(observations, actions)
        step = policy.act(observations, deterministic=True)
    pairs = {
        "alpha": output.first,
        "beta": output.second,
        "log_probs": evaluation.log_prob,
        "entropy": evaluation.entropy,
        "deterministic": step.action,
    }
    if prefix == "policy":
        assert evaluation.cost_value is not None
        pairs |= {"values": evaluation.value, "cost_values": evaluation.cost_value}
    for name, got in pairs.items():
        torch.testing.assert_close(got, TENSORS[f"{prefix}_{name}"], atol=1e-4, rtol=1e-4)


def count(policy: GatingPolicy) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())


def test_parameter_counts_are_the_original_ones() -> None:
    assert count(GatingPolicy()) == 20_963
    assert count(GatingPolicy(cost_critic=True)) == 23_076
    assert count(GatingPolicy(PolicyConfig(distribution="gaussian"))) == 20_931


def test_state_dict_names_and_order_are_the_original_ones() -> None:
    original = torch.load(PARITY / "policy.pth", weights_only=True)["agent_state_dict"]
    ours = GatingPolicy(cost_critic=True).state_dict()
    assert list(ours) == list(original)
    gaussian = GatingPolicy(PolicyConfig(distribution="gaussian")).state_dict()
    assert {"actor_mean.0.weight", "actor_mean.2.bias", "log_std"} <= set(gaussian)


def test_initial_weights_are_orthogonal_with_the_documented_gains() -> None:
    policy = GatingPolicy()
    wide = policy.feature_extractor[3].weight  # shape (64, 128), so its rows are orthogonal
    torch.testing.assert_close(wide @ wide.T, 2.0 * torch.eye(64), atol=1e-4, rtol=0)
    assert policy.actor_head is not None
    for head in (policy.actor_head, policy.critic_head):
        output = head[2].weight
        torch.testing.assert_close(output @ output.T, 1e-4 * torch.eye(len(output)), atol=1e-8, rtol=0)
    gaussian = GatingPolicy(PolicyConfig(distribution="gaussian"))
    assert gaussian.actor_mean is not None
    assert gaussian.actor_mean[2].weight.norm().item() == pytest.approx(2.0**0.5, abs=1e-5)


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
def test_collected_log_probability_equals_the_evaluated_one(distribution: str) -> None:
    """The two log-probabilities must be equal, also for clamped actions.

    PPO's ratio, exp(evaluated - collected), is then 1 before the first update.
    """
    policy = GatingPolicy(PolicyConfig(distribution=distribution))
    if distribution == "gaussian":
        torch.nn.init.constant_(policy.log_std, 2.0)  # so wide that many actions are clamped
    observations = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        step = policy.act(observations, generator=torch.Generator().manual_seed(1))
        evaluation = policy.evaluate(observations, step.action)
    assert step.action.shape == (500, 1)
    assert step.action.min() >= 0.001
    assert step.action.max() <= 0.999
    torch.testing.assert_close(step.log_prob, evaluation.log_prob, atol=1e-6, rtol=0)
    torch.testing.assert_close(step.value, evaluation.value)


@pytest.mark.parametrize("log_std", [-1.0, 0.0, 0.7])
def test_gaussian_density_and_entropy_agree_with_integration(log_std: float) -> None:
    policy = GatingPolicy(PolicyConfig(distribution="gaussian")).double()
    torch.nn.init.constant_(policy.log_std, log_std)
    assert policy.actor_mean is not None
    # With a random mean, the probability mass at the clamp could exceed the tolerance.
    torch.nn.init.zeros_(policy.actor_mean[2].weight)
    torch.nn.init.constant_(policy.actor_mean[2].bias, 0.3)
    observation = torch.randn(1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    m = torch.linspace(0.001, 0.999, 40_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        evaluation = policy.evaluate(observation.expand(len(m), -1), m)
        density = evaluation.log_prob.exp()
    assert torch.trapezoid(density, m[:, 0]).item() == pytest.approx(1.0, abs=2e-3)
    entropy = torch.trapezoid(-density * evaluation.log_prob, m[:, 0]).item()
    assert evaluation.entropy[0].item() == pytest.approx(entropy, abs=2e-2)


def test_beta_log_probability_and_entropy_agree_with_torch() -> None:
    policy = GatingPolicy()
    observations = torch.randn(20, 64, generator=torch.Generator().manual_seed(3))
    actions = torch.rand(20, 1, generator=torch.Generator().manual_seed(4))
    output = policy(observations)
    reference = Beta(output.first, output.second)
    evaluation = policy.evaluate(observations, actions)
    torch.testing.assert_close(evaluation.log_prob, reference.log_prob(actions.clamp(0.001, 0.999)).sum(-1))
    torch.testing.assert_close(evaluation.entropy, reference.entropy().sum(-1))


def test_sampled_actions_have_the_mean_of_the_beta_and_follow_the_seed() -> None:
    policy = load_policy(PARITY / "policy.pth")
    observation = TENSORS["policy_observations"][:1].expand(20_000, -1)
    with torch.no_grad():
        sampled = policy.act(observation, generator=torch.Generator().manual_seed(5)).action
        again = policy.act(observation, generator=torch.Generator().manual_seed(5)).action
        output = policy(observation[:1])
    assert torch.equal(sampled, again)
    beta = Beta(output.first, output.second)
    assert sampled.mean().item() == pytest.approx(beta.mean.item(), abs=4 * beta.stddev.item() / 20_000**0.5)


def test_a_flat_beta_acts_at_the_middle() -> None:
    policy = GatingPolicy()
    assert policy.actor_head is not None
    torch.nn.init.zeros_(policy.actor_head[2].weight)
    torch.nn.init.constant_(policy.actor_head[2].bias, -200.0)
    assert policy.act(torch.randn(3, 64), deterministic=True).action.tolist() == [[0.5]] * 3


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
def test_a_packed_actor_picks_what_the_policy_picks(distribution: Literal["beta", "gaussian"]) -> None:
    torch.manual_seed(3)
    policy = GatingPolicy(PolicyConfig(distribution=distribution)).eval()
    for head in policy.actor:
        if isinstance(head, torch.nn.Linear):
            torch.nn.init.normal_(head.weight, std=0.7)
    observation, uniform, sampled = torch.randn(9, 64), torch.rand(9), torch.arange(9) % 2 == 0
    packed = PackedActor(policy)
    with torch.no_grad():
        for rows in (None, sampled):
            expected = policy.act_rows(observation, uniform, rows)
            torch.testing.assert_close(packed.act_rows(observation, uniform, rows), expected, atol=1e-5, rtol=0)
            assert expected.std() > 0.05


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
def test_the_deterministic_action_is_the_mean_of_the_sampled_ones(distribution: Literal["beta", "gaussian"]) -> None:
    torch.manual_seed(5)
    policy = GatingPolicy(PolicyConfig(distribution=distribution)).eval()
    for head in policy.actor:
        if isinstance(head, torch.nn.Linear):
            torch.nn.init.normal_(head.weight, std=0.7)
    observation = torch.randn(6, 64)
    with torch.no_grad():
        mean = policy.act(observation, deterministic=True).action
        many = policy.act(observation.repeat(20_000, 1), generator=torch.Generator().manual_seed(6)).action
    sampled = many.view(20_000, 6)
    error = 4 * sampled.std(0) / 20_000**0.5
    assert ((mean[:, 0] - sampled.mean(0).clamp(0.01, 0.99)).abs() <= error + 1e-3).all()
    assert mean.std() > 0.02


def test_the_mode_of_a_skewed_beta_is_far_from_its_mean() -> None:
    """A policy that samples 0.16 on average acted at 0.01 as long as the mode was its deterministic action."""
    mean, mode = GatingPolicy(PolicyConfig()), GatingPolicy(PolicyConfig(deterministic_action="mode"))
    mode.load_state_dict(mean.state_dict())
    for policy in (mean, mode):
        assert policy.actor_head is not None
        torch.nn.init.zeros_(policy.actor_head[2].weight)
        with torch.no_grad():
            policy.actor_head[2].bias.copy_(torch.tensor([-9.0, 4.25]))
    observation = torch.randn(1, 64)
    assert mean.act(observation, deterministic=True).action.item() == pytest.approx(1 / 6.26, abs=0.01)
    assert mode.act(observation, deterministic=True).action.item() == pytest.approx(0.01)
