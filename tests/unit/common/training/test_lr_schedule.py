"""The learning rate follows the documented curve."""

from __future__ import annotations

import math

import pytest

from common.training.lr_schedule import warmup_cosine_rate


def rates(total: int, warmup: int, **more: float) -> list[float]:
    return [
        warmup_cosine_rate(step, total, warmup_steps=warmup, peak=1e-3, floor=1e-6, **more) for step in range(total + 1)
    ]


def test_warm_up_is_linear_from_the_first_step() -> None:
    assert rates(100, 10)[:10] == pytest.approx([1e-4 * (step + 1) for step in range(10)])


def test_after_warm_up_the_rate_follows_half_a_cosine_to_the_floor() -> None:
    values = rates(100, 10)
    expected = [1e-6 + (1e-3 - 1e-6) * math.cos(math.pi / 2 * (step - 10) / 90) ** 2 for step in range(10, 101)]
    assert values[10:] == pytest.approx(expected)
    assert values[100] == pytest.approx(1e-6)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(100, 0)[0] == pytest.approx(1e-3)


def test_all_warm_up_never_passes_the_peak() -> None:
    assert max(rates(10, 50)) == pytest.approx(1e-3)


def test_a_time_limit_used_up_before_the_steps_determines_the_rate() -> None:
    by_steps = warmup_cosine_rate(80, 100, warmup_steps=10, peak=1e-3, floor=1e-6)
    by_time = warmup_cosine_rate(20, 100, warmup_steps=10, peak=1e-3, floor=1e-6, time_fraction=0.8)
    assert by_time == pytest.approx(by_steps)
    slow_clock = warmup_cosine_rate(80, 100, warmup_steps=10, peak=1e-3, floor=1e-6, time_fraction=0.1)
    assert slow_clock == by_steps
    assert warmup_cosine_rate(20, 100, warmup_steps=10, peak=1e-3, floor=1e-6, time_fraction=2.0) == pytest.approx(1e-6)
