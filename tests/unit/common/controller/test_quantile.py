"""Quantiles agree with the closed form of the Beta distribution function for integer parameters."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from common.controller import GatingPolicy
from common.controller.quantile import beta_quantile, normal_quantile


def beta_cdf(x: float, a: int, b: int) -> float:
    """Return P(X ≤ x) for X ~ Beta(a, b): the probability of at least `a` successes in a + b − 1 trials."""
    n = a + b - 1
    return math.fsum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1))


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 2), (2, 1), (3, 5), (15, 15), (15, 1), (1, 15)])
def test_the_beta_quantile_inverts_the_distribution_function(a: int, b: int) -> None:
    uniform = torch.tensor([0.0, 0.001, 0.2, 0.5, 0.9, 0.9999])
    rows = torch.ones(len(uniform), 1)
    found = beta_quantile(a * rows, b * rows, uniform[:, None])
    for x, expected in zip(found[:, 0].tolist(), uniform.tolist(), strict=True):
        assert beta_cdf(x, a, b) == pytest.approx(expected, abs=1e-3)


def test_the_normal_quantile_is_that_of_the_normal_distribution() -> None:
    uniform = torch.tensor([[0.01], [0.5], [0.975]])
    found = normal_quantile(torch.tensor([[1.0]]), torch.tensor([[2.0]]), uniform)
    assert found[:, 0].tolist() == pytest.approx(
        [NormalDist(1, 2).inv_cdf(value) for value in uniform[:, 0].tolist()], abs=1e-5
    )
    assert torch.isfinite(normal_quantile(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1))).all()


def test_rows_that_are_not_sampled_take_the_mode() -> None:
    torch.manual_seed(0)
    policy, observations = GatingPolicy().eval(), torch.randn(3, 64)
    torch.nn.init.normal_(policy.get_parameter("actor_head.2.weight"), std=1.0)
    with torch.no_grad():
        modes = policy.act(observations, deterministic=True).action
        mixed = policy.act_rows(observations, torch.tensor([0.9, 0.9, 0.9]), torch.tensor([False, True, False]))
        assert torch.equal(policy.act_rows(observations, torch.zeros(3), None), modes)
    assert torch.equal(mixed[[0, 2]], modes[[0, 2]])
    assert mixed[1] > modes[1]
