"""The description of a policy's modulations states its deviations, what explains them, and whether it is a constant."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from common.rl.behaviour import describe_modulation, explained_by_bins

RANDOM = np.random.default_rng(0)


def test_deviations_are_those_of_the_standard_library() -> None:
    texts = [[0.1, 0.4, 0.7], [0.2, 0.3], [0.9]]
    padded = np.array([[*text, *[np.nan] * (3 - len(text))] for text in texts])
    found = describe_modulation(padded, np.where(np.isnan(padded), np.nan, 1.0))
    assert found["mean"] == pytest.approx(statistics.fmean(value for text in texts for value in text))
    within = statistics.fmean(statistics.pvariance(text) for text in texts) ** 0.5
    assert found["std_within"] == pytest.approx(within)
    assert found["std_between"] == pytest.approx(statistics.pstdev(statistics.fmean(text) for text in texts))
    assert found["entropy_share"] is None, "six tokens are too few"
    assert not found["constant"]


def test_a_flat_policy_is_called_a_constant() -> None:
    modulation = 0.0397 + 8e-5 * RANDOM.normal(size=(60, 32))
    found = describe_modulation(modulation, RANDOM.uniform(0, 5, size=(60, 32)))
    assert found["constant"]
    assert found["verdict"].startswith(
        "The controller behaves like the constant m = 0.0397: its m deviates by 7.8e-05 "
    )
    equal = describe_modulation(np.full((5, 32), 0.2), RANDOM.uniform(0, 5, size=(5, 32)))
    assert equal["entropy_share"] is None and equal["constant"]


def test_a_policy_that_differs_only_between_texts_is_no_constant() -> None:
    found = describe_modulation(np.repeat([[0.2], [0.6]], 40, axis=1), np.ones((2, 40)))
    assert (found["std_within"], found["std_between"]) == pytest.approx((0.0, 0.2), abs=1e-12)
    assert not found["constant"]


def test_a_policy_of_the_entropy_is_explained_by_it_and_noise_is_not() -> None:
    entropy = RANDOM.uniform(0, 6, size=(50, 40))
    rule = 0.2 + 0.5 * (entropy > 3)
    found = describe_modulation(rule, entropy)
    assert found["entropy_share"] == pytest.approx(1.0, abs=0.05)
    assert "the entropy explains" in found["verdict"] and "varies m around" in found["verdict"]
    # Half of the variance is noise, so half of it is explained.
    noisy = rule + rule.std() * RANDOM.normal(size=rule.shape)
    assert describe_modulation(noisy, entropy)["entropy_share"] == pytest.approx(0.5, abs=0.05)


def test_noise_explains_nothing_on_average() -> None:
    shares = [explained_by_bins(RANDOM.normal(size=80), RANDOM.normal(size=80)) or 0.0 for _ in range(200)]
    assert np.mean(shares) < 0.06, "without the adjustment it would be 9 / 79"
