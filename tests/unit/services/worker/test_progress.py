"""A trainer without progress is detected, a slow one is not, and the estimated remaining time follows the speed."""

from __future__ import annotations

import pytest

from services.worker.progress import ProgressMeter, ProgressWatch


def stepping(interval: float, count: int) -> tuple[ProgressWatch, float]:
    watch, now = ProgressWatch(0.0, floor_seconds=120.0, phase_seconds=1800.0), 0.0
    for _ in range(count):
        now += interval
        watch.record_progress(now)
    return watch, now


def test_no_message_for_ten_times_the_median_is_too_long() -> None:
    watch, now = stepping(60.0, 30)
    assert not watch.overdue(now + 599)
    assert watch.overdue(now + 601)


def test_the_limit_of_fast_steps_is_two_minutes() -> None:
    watch, now = stepping(0.05, 100)
    assert not watch.overdue(now + 119)
    assert watch.overdue(now + 121)


def test_the_limit_of_first_steps_and_of_phases_is_half_an_hour() -> None:
    watch, now = stepping(0.1, 10)
    assert not watch.overdue(now + 1799)
    assert watch.overdue(now + 1801)
    watch, now = stepping(0.1, 100)
    watch.record_phase("evaluation", now)
    assert not watch.overdue(now + 1799)


def test_the_limit_does_not_apply_to_a_suspended_trainer() -> None:
    watch, now = stepping(0.1, 100)
    watch.restart_limit(now + 500)
    assert not watch.overdue(now + 600)


def test_the_remaining_time_follows_the_pace_of_the_last_minute() -> None:
    meter = ProgressMeter()
    meter.record(0, 1000, 0.0)
    assert meter.eta_seconds is None
    for step in range(1, 101):
        meter.record(step, 1000, step * 10.0)
    assert meter.steps_per_second == pytest.approx(0.1)
    for step in range(101, 301):
        meter.record(step, 1000, 1000.0 + (step - 100) * 0.5)
    assert meter.eta_seconds == pytest.approx(700 / 2.0, rel=0.02)


def test_micro_batches_of_one_step_do_not_count_as_pace() -> None:
    meter = ProgressMeter()
    for now in range(10):
        meter.record(3, 10, float(now))
    assert meter.steps_per_second is None
    meter.restart()
    assert meter.step == 3


def test_the_remaining_time_follows_a_time_limit_that_ends_the_training() -> None:
    meter = ProgressMeter()
    for step in range(1, 31):
        meter.record(step, 1_000_000, step * 1.0, time_share=step / 40)
    assert meter.eta_seconds == pytest.approx(10.0)
    meter = ProgressMeter()
    for step in range(1, 31):
        meter.record(step, 35, step * 1.0, time_share=step / 4000)
    assert meter.eta_seconds == pytest.approx(5.0)
