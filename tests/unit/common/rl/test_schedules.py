"""Schedules and adaptive coefficients equal those of the original project.

Where the original project is wrong, they equal numbers computed by hand.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from common.config import REWARD_COMPONENTS, RewardConfig
from common.errors import DivergedError
from common.rl import schedules
from common.rl.rewards import reward_weights
from tests.paths import PARITY

torch.set_num_threads(1)


def _series(file: str, name: str) -> list[dict[str, float]]:
    content: dict[str, Any] = json.loads((PARITY / f"{file}.json").read_text())
    series: list[dict[str, float]] = content[name]
    return series


@pytest.mark.parametrize("file", ["reference", "edge_cases"])
def test_entropy_homeostasis_equals_the_original(file: str) -> None:
    coefficient = 0.01
    for step in _series(file, "entropy_homeostasis"):
        coefficient = schedules.entropy_homeostasis(coefficient, step["entropy"])
        assert coefficient == pytest.approx(step["coef"], abs=1e-12)


@pytest.mark.parametrize("file", ["reference", "edge_cases"])
def test_diversity_homeostasis_equals_the_original(file: str) -> None:
    weight = 0.15
    for step in _series(file, "diversity_homeostasis"):
        weight = schedules.diversity_homeostasis(weight, step["diversity"])
        assert weight == pytest.approx(step["weight"], abs=1e-12)


def test_the_rate_for_a_large_rollout_is_applied_once_per_128_transitions() -> None:
    small = 0.01
    for _ in range(32):
        small = schedules.entropy_homeostasis(small, -0.8)
    assert schedules.entropy_homeostasis(0.01, -0.8, times=32) == small


def test_linear_schedules_meet_their_ends() -> None:
    assert [schedules.linear_schedule(0.01, 0.03, p) for p in (0, 0.5, 1, 2)] == pytest.approx([0.01, 0.02, 0.03, 0.03])
    assert [schedules.decayed_learning_rate(3e-4, p) for p in (0, 0.5, 1)] == pytest.approx([3e-4, 1.65e-4, 3e-5])


def test_constrained_weights_omit_the_constrained_components() -> None:
    weights = dict(zip(REWARD_COMPONENTS, schedules.constrained_weights(reward_weights(RewardConfig())), strict=True))
    assert weights == pytest.approx(
        {"perplexity": 0.35 / 0.65, "diversity": 0, "sampling": 0.15 / 0.65, "repetition": 0, "coherence": 0.15 / 0.65}
    )


def _integral(multiplier: schedules.PidMultiplier, violation: float, rate: float = 0.05) -> float:
    multiplier.update(violation, integral=rate, proportional=0.0, derivative=0.0)
    return multiplier.value


def test_the_multiplier_rises_while_violated_and_falls_to_zero_while_slack() -> None:
    assert _integral(schedules.PidMultiplier(1.0, 1.0), 0.2) == pytest.approx(1.0 + 0.05 * 0.2)
    assert _integral(schedules.PidMultiplier(1.0, 1.0), -0.2) == pytest.approx(1.0 - 0.05 * 0.2)
    multiplier = schedules.PidMultiplier(1.0, 1.0)
    assert [_integral(multiplier, -0.2) for _ in range(200)][-1] == 0
    assert _integral(multiplier, 0.2) == pytest.approx(0.01), "the integral does not remember the slack"


def test_the_integral_part_finds_the_multiplier_of_a_known_problem() -> None:
    # The problem has two arms; arm A is chosen with probability x. Maximise 1.0·x subject to the diversity 0.9 − 0.7·x
    # ≥ 0.55, which gives x = 0.5. With the regulariser 0.5·x², the best x for a given λ is 1 − 0.7·λ, so λ* = 0.5 /
    # 0.7.
    multiplier = schedules.PidMultiplier(1.0, 1.0)
    for _ in range(3000):
        x = min(max(1 - 0.7 * multiplier.value, 0), 1)
        _integral(multiplier, 0.55 - (0.9 - 0.7 * x))
    assert multiplier.value == pytest.approx(0.5 / 0.7, rel=0.01)


def test_the_three_parts_of_the_multiplier_equal_the_sums_that_define_them() -> None:
    violations = [0.3, 0.1, 0.2, -0.9, -0.1, 0.4]
    multiplier = schedules.PidMultiplier(0.2, 0.2)
    integral, before, expected, found = 0.2, violations[0], [], []
    for violation in violations:
        integral = max(0.0, integral + 0.5 * violation)
        expected.append(max(0.0, 2.0 * violation + integral + 3.0 * max(0.0, violation - before)))
        before = violation
        multiplier.update(violation, integral=0.5, proportional=2.0, derivative=3.0)
        found.append(multiplier.value)
    assert found == pytest.approx(expected)
    with pytest.raises(DivergedError):
        multiplier.update(math.nan, integral=0.5, proportional=0.0, derivative=0.0)


def test_integral_control_leaves_no_error_where_homeostasis_leaves_one() -> None:
    # A policy whose entropy rises with the coefficient reaches the target −0.35 at the coefficient 0.2.
    def entropy_of(coefficient: float) -> float:
        return -0.55 + coefficient

    integral = homeostasis = 0.01
    for _ in range(4000):
        error = -0.35 - entropy_of(integral)
        integral = schedules.integral_control(integral, error, rate=0.01, low=0.01, high=0.5)
        homeostasis = schedules.entropy_homeostasis(homeostasis, entropy_of(homeostasis))
    assert integral == pytest.approx(0.2, abs=1e-6)
    assert entropy_of(homeostasis) < -0.35 - 0.05
    assert schedules.integral_control(0.4, 90.0, rate=0.01, low=0.01, high=0.5) == 0.5


def test_the_combined_advantage_weighs_centred_costs() -> None:
    reward = torch.tensor([1.0, -1.0, 0.0])
    cost = torch.tensor([5.0, 6.0, 7.0])
    found = schedules.lagrangian_advantage(reward, cost, 0.5)
    torch.testing.assert_close(found, torch.tensor([(1 + 0.5) / 1.5, -1 / 1.5, -0.5 / 1.5]))
    torch.testing.assert_close(schedules.lagrangian_advantage(reward, cost, 0.0), reward)


def test_the_stored_form_of_the_multiplier_round_trips() -> None:
    for value in (1e-3, 0.693, 1.0, 40.0):
        assert schedules.multiplier_from_raw(schedules.multiplier_to_raw(value)) == pytest.approx(value, rel=1e-9)
    assert schedules.multiplier_from_raw(0.0) == pytest.approx(math.log(2))
    assert schedules.multiplier_from_raw(-800.0) == 0
    with pytest.raises(ValueError, match="above 0"):
        schedules.multiplier_to_raw(0.0)


def test_hinge_cost_is_zero_where_the_constraint_holds() -> None:
    found = schedules.hinge_cost(torch.tensor([0.2, 0.55, 0.9]))
    torch.testing.assert_close(found, torch.tensor([0.35, 0.0, 0.0]))


def test_gate_loss_rewards_entropy() -> None:
    flat = torch.zeros(3, 8, requires_grad=True)
    loss = schedules.gate_loss(flat)
    assert loss.item() == pytest.approx(-0.1 * math.log(8))
    peaked = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    torch.autograd.backward(schedules.gate_loss(peaked))
    assert peaked.grad is not None
    assert peaked.grad[0, 0] > 0, "descent lowers the highest logit"
