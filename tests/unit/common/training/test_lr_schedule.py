"""The learning rate follows the documented curve."""

from __future__ import annotations

import math
from typing import Any

import pytest

from common.training.lr_schedule import scheduled_rate


def rates(total: int, warmup: int, **more: Any) -> list[float]:
    return [
        scheduled_rate(step, total, warmup_steps=warmup, peak=1e-3, floor=1e-6, **more) for step in range(total + 1)
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
    by_steps = scheduled_rate(80, 100, warmup_steps=10, peak=1e-3, floor=1e-6)
    by_time = scheduled_rate(20, 100, warmup_steps=10, peak=1e-3, floor=1e-6, time_fraction=0.8)
    assert by_time == pytest.approx(by_steps)
    slow_clock = scheduled_rate(80, 100, warmup_steps=10, peak=1e-3, floor=1e-6, time_fraction=0.1)
    assert slow_clock == by_steps
    assert scheduled_rate(20, 100, warmup_steps=10, peak=1e-3, floor=1e-6, time_fraction=2.0) == pytest.approx(1e-6)


def test_a_linear_schedule_falls_on_a_line_after_the_warm_up() -> None:
    values = rates(100, 10, schedule="linear")
    assert values[:10] == pytest.approx([1e-4 * (step + 1) for step in range(10)])
    assert values[10:] == pytest.approx([1e-3 - (1e-3 - 1e-6) * (step - 10) / 90 for step in range(10, 101)])


def test_wsd_is_constant_until_its_last_part() -> None:
    values = rates(100, 10, schedule="wsd", decay_ratio=0.25)
    assert values[9:76] == pytest.approx([1e-3] * 67)
    assert values[75:] == pytest.approx([1e-6 + (1e-3 - 1e-6) * (100 - step) / 25 for step in range(75, 101)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_every_schedule_follows_the_clock_of_a_time_limit(schedule: Any) -> None:
    def at(step: int, share: float) -> float:
        return scheduled_rate(
            step,
            1000,
            warmup_steps=100,
            peak=1e-3,
            floor=0.0,
            time_fraction=share,
            schedule=schedule,
            decay_ratio=0.3,
        )

    for share in (0.05, 0.3, 0.8, 0.95, 1.0):
        assert at(3, share) == pytest.approx(at(round(1000 * share), 0.0))
