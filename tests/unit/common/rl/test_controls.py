"""Adapted coefficients follow their formulas in a training, survive a resume exactly, and meet a constraint."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.config import REWARD_COMPONENTS, RLConfig, build
from common.controller import load_policy
from common.errors import ConfigError
from common.rl import PPOBatch, ppo_update, schedules
from common.rl.controls import Controls
from common.rl.export import FINAL_POLICY
from common.training.hooks import Outcome, StopRequest
from tests.unit.common.rl.toys import toy_config
from tests.unit.common.rl.trainings import Listener, comparable, run_training, weights_of

torch.set_num_threads(1)

EVERYTHING: dict[str, Any] = {
    "policy": {"normalise_observations": True},
    "ppo": {"normalise_rewards": True, "target_kl": 0.001, "entropy_schedule": "integral", "entropy_coef_min": 0.0},
    "constraint": {"mode": "lagrangian", "multiplier_proportional": 0.5, "multiplier_derivative": 0.2},
}
HOMEOSTASIS: dict[str, Any] = {
    "ppo": {"entropy_schedule": "homeostasis", "policy_entropy_target": 0.5},
    "diversity_homeostasis": {"target": 0.9, "release_rate": 0.1},
}


@pytest.mark.parametrize("options", [EVERYTHING, HOMEOSTASIS])
def test_a_training_with_adapted_coefficients_resumes_exactly(tmp_path: Path, options: dict[str, Any]) -> None:
    config = toy_config(**options)
    _, whole = run_training(tmp_path / "whole", config)
    outcome, before = run_training(tmp_path / "parts", config, Listener(StopRequest.PAUSE, 14))
    assert outcome is Outcome.PAUSED and 0 < len(before.points) < 4
    outcome, after = run_training(tmp_path / "parts", config)
    assert outcome is Outcome.COMPLETED
    both = Listener()
    both.points = before.points + after.points
    assert comparable(both) == comparable(whole)
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    results = [(tmp_path / run / "ablation_results.json").read_text() for run in ("whole", "parts")]
    assert results[0] == results[1]


def test_the_reported_coefficients_follow_from_the_reported_measurements(tmp_path: Path) -> None:
    _, hooks = run_training(tmp_path, toy_config(**HOMEOSTASIS))
    points = [values for _, values in hooks.points]
    for now, then in pairwise(points):
        assert then["entropy_coef"] == pytest.approx(
            schedules.entropy_homeostasis(now["entropy_coef"], now["entropy"], target=0.5), abs=1e-9
        )
        assert then["diversity_weight"] == pytest.approx(
            schedules.diversity_homeostasis(
                now["diversity_weight"], now["reward/diversity"], target=0.9, release_rate=0.1
            ),
            abs=1e-7,
        )
        weights = [0.35, now["diversity_weight"], 0.15, 0.20, 0.15]
        total = sum(w * now[f"reward/{name}"] for w, name in zip(weights, REWARD_COMPONENTS, strict=True))
        assert now["step_reward"] == pytest.approx(total, abs=1e-5)
    assert points[-1]["diversity_weight"] > points[0]["diversity_weight"] == 0.15


def test_the_constrained_mode_reports_multiplier_and_cost_and_leaves_a_cost_critic(tmp_path: Path) -> None:
    _, hooks = run_training(tmp_path, toy_config(**EVERYTHING))
    points = [values for _, values in hooks.points]
    multiplier = schedules.PidMultiplier(1.0, 1.0)
    for point in points:
        multiplier.update(0.55 - point["reward/diversity"], integral=0.05, proportional=0.5, derivative=0.2)
        assert point["lagrange_multiplier"] == pytest.approx(multiplier.value, abs=1e-6)
        assert point["cost_value_loss"] > 0 and point["diversity_weight"] == 0
        weights = schedules.constrained_weights((0.35, 0.15, 0.15, 0.20, 0.15))
        total = sum(w * point[f"reward/{name}"] for w, name in zip(weights, REWARD_COMPONENTS, strict=True))
        assert point["step_reward"] == pytest.approx(total, abs=1e-5), "reported rewards are not scaled"
    policy = load_policy(tmp_path / FINAL_POLICY)
    assert policy.cost_critic_head is not None and policy.config.normalise_observations
    assert policy.get_buffer("observation_deviation").std() > 0


def test_rates_apply_once_per_128_transitions() -> None:
    config = build(RLConfig, {"ppo": {"entropy_schedule": "integral"}, "diversity_homeostasis": {"target": 0.9}})
    large, small = Controls.initial(config), Controls.initial(config)
    large.adapt_diversity_weight(config, 0.5, 512)
    large.adapt_entropy_coef(config, -0.8, 512)
    for _ in range(4):
        small.adapt_diversity_weight(config, 0.5, 128)
        small.adapt_entropy_coef(config, -0.8, 128)
    assert (large.diversity_weight, large.entropy_coef) == pytest.approx((small.diversity_weight, small.entropy_coef))
    assert large.entropy_coef == pytest.approx(0.01 + 4 * 0.01 * 0.45)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ppo": {"entropy_coef_min": 0.6}}, "entropy_coef_min 0.6 is above"),
        ({"diversity_homeostasis": {"weight_min": 0.5}}, "weight_min 0.5 is above"),
        (
            {
                "constraint": {"mode": "lagrangian"},
                "reward": {"perplexity_weight": 0, "sampling_weight": 0, "coherence_weight": 0},
            },
            "all others are 0",
        ),
    ],
)
def test_contradictory_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(RLConfig, values)


class Bandit(nn.Module):
    """A policy over two arms, without state. Its critics are constants, as they are in a bandit."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))
        self.critics = nn.Parameter(torch.zeros(2))

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        arms = torch.distributions.Bernoulli(logits=self.logit.expand(len(action)))
        value, cost = (critic.expand(len(action)) for critic in self.critics)
        return arms.log_prob(action[:, 0]), arms.entropy(), value, cost


def test_a_constrained_bandit_reaches_its_known_multiplier_and_its_limit() -> None:
    """Arm 1 pays 1 and costs 1, arm 0 pays 0.4 and costs nothing; at most 0.3 may be spent.

    The arms are equally good for r − λ·c if 1 − λ = 0.4, so λ* = 0.6, and the limit is met with p(arm 1) = 0.3.
    """
    torch.manual_seed(0)
    policy, generator = Bandit(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD([{"params": [policy.logit], "lr": 2.0}, {"params": [policy.critics], "lr": 0.1}])
    multiplier = schedules.PidMultiplier(1.0, 1.0)
    spent, multipliers = [], []
    for _ in range(400):
        with torch.no_grad():
            action = torch.bernoulli(policy.logit.sigmoid().expand(1024, 1), generator=generator)
            log_prob, _, value, cost_value = policy.evaluate(action, action)
        cost, reward = action[:, 0], 0.4 + 0.6 * action[:, 0]
        # The advantages are not standardised, because this would change the size of the reward relative to the cost.
        advantage = schedules.lagrangian_advantage(reward - value, cost - cost_value, multiplier.value)
        batch = PPOBatch(action, action, log_prob, advantage - advantage.mean(), reward, cost)
        ppo_update(
            policy,
            optimizer,
            batch,
            epochs=1,
            minibatch_size=1024,
            clip_range=0.2,
            value_coef=0.5,
            entropy_coef=0.0,
            max_grad_norm=10.0,
            generator=generator,
        )
        multiplier.update(float(cost.mean()) - 0.3, integral=0.05, proportional=1.0, derivative=0.0)
        spent.append(float(policy.logit.detach().sigmoid()))
        multipliers.append(multiplier.value)
    assert sum(multipliers[-200:]) / 200 == pytest.approx(0.6, rel=0.05)
    assert sum(spent[-200:]) / 200 == pytest.approx(0.3, rel=0.02)
