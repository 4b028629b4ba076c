"""The learning rate follows the documented curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from common.config import LMConfig, TrainingConfig
from common.metrics import names
from common.training.lr_schedule import scheduled_rate
from common.training.pretrain import pretrain


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


def test_the_batch_doubles_in_equal_parts_of_the_growth() -> None:
    config = TrainingConfig(micro_batch_size=2, initial_batch_size=4, effective_batch_size=16, batch_growth_ratio=0.4)
    sizes = [config.batch_size_at(step / 100) for step in range(100)]
    assert sizes == [4] * 20 + [8] * 20 + [16] * 60
    assert config.mean_batch_size == pytest.approx(sum(sizes) / 100)
    assert TrainingConfig().batch_size_at(0.0) == TrainingConfig().mean_batch_size == 2048


@pytest.mark.parametrize("initial", [3, 32])
def test_an_initial_batch_must_fit_the_others(initial: int) -> None:
    with pytest.raises(ValueError, match=f"initial_batch_size {initial} is not a multiple"):
        TrainingConfig(micro_batch_size=2, initial_batch_size=initial, effective_batch_size=16)


def test_a_training_with_a_growing_batch_ends_near_its_epochs(
    make_config: Callable[..., LMConfig], recorder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    growing = {"max_steps": None, "epochs": 2, "initial_batch_size": 2, "effective_batch_size": 8}
    hooks = recorder()
    config = make_config(training=growing)
    pretrain(config, tmp_path, hooks, data_dir=data_dir)
    tokens = [0, *hooks.series(names.TOKENS_SEEN).values()]
    per_step = [after - before for before, after in pairwise(tokens)]
    total = hooks.progress[-1][1]
    chunks = left = round(2 / hooks.series(names.EPOCH)[1])
    for step, count in enumerate(per_step):
        expected = min(config.training.batch_size_at(step / total), left)
        assert count == expected * 16, step
        left = left - expected or chunks
    assert {count // 16 for count in per_step} >= {2, 4, 8}
    assert hooks.series(names.EPOCH)[len(per_step)] == pytest.approx(2.0, abs=0.3)


def test_speeds_count_the_tokens_since_the_last_report(
    make_config: Callable[..., LMConfig], recorder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    growing = {"initial_batch_size": 2, "effective_batch_size": 8, "batch_growth_ratio": 0.8, "log_every_steps": 3}
    hooks = recorder()
    pretrain(make_config(training=growing), tmp_path, hooks, data_dir=data_dir)
    tokens, steps, seen = (
        hooks.series(name) for name in (names.TOKENS_PER_SECOND, names.STEPS_PER_SECOND, names.TOKENS_SEEN)
    )
    assert tokens[3] / steps[3] == pytest.approx(seen[3] / 3)
    assert tokens[6] / steps[6] == pytest.approx((seen[6] - seen[3]) / 3)
    assert tokens[6] / steps[6] != pytest.approx(8 * 16), "not the last batch"
