"""A spike of the loss is reported once, exactly at its first step, also after a resume."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.checkpoint.manager import CheckpointManager
from common.config import LMConfig
from common.training import loss_spikes
from common.training.hooks import Outcome, StopRequest
from common.training.loss_spikes import LossStatistics
from common.training.pretrain import pretrain

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]


def noisy(count: int, *, mean: float = 3.0, deviation: float = 0.05, seed: int = 1) -> list[float]:
    source = random.Random(seed)
    return [source.gauss(mean, deviation) for _ in range(count)]


def steps_with_spikes(losses: list[float]) -> list[int]:
    found = LossStatistics()
    return [step for step, loss in enumerate(losses, 1) if found.add(loss) is not None]


def test_at_first_the_statistics_are_the_plain_mean_and_variance() -> None:
    losses, found = noisy(25), LossStatistics()
    for loss in losses:
        found.add(loss)
    assert found.mean == pytest.approx(statistics.fmean(losses), rel=1e-12)
    assert found.variance == pytest.approx(statistics.pvariance(losses), rel=1e-9)


def test_later_the_statistics_are_the_exponentially_weighted_ones() -> None:
    losses, found = noisy(400), LossStatistics()
    for loss in losses:
        found.add(loss)
    # Up to the 25th loss, 1/n is above 2/51, so these losses have equal weights. Each later loss enters with the weight
    # 2/51. Every further loss multiplies the weights of all losses before it by 1 − 2/51.
    weight = 2 / 51
    ages = [(1 - weight) ** (400 - n) for n in range(1, 401)]
    shares = [ages[25 - 1] / 25 if n <= 25 else weight * ages[n - 1] for n in range(1, 401)]
    assert sum(shares) == pytest.approx(1.0)
    mean = sum(share * loss for share, loss in zip(shares, losses, strict=True))
    variance = sum(share * (loss - mean) ** 2 for share, loss in zip(shares, losses, strict=True))
    assert found.mean == pytest.approx(mean, rel=1e-9)
    assert found.variance == pytest.approx(variance, rel=1e-9)


def test_six_deviations_make_a_spike_and_five_do_not() -> None:
    for deviations, expected in ((5.9, False), (6.1, True)):
        found = LossStatistics()
        for loss in noisy(200):
            found.add(loss)
        mean, deviation = found.mean, found.variance**0.5
        spike = found.add(mean + deviations * deviation)
        assert (spike is not None) == expected
        if spike is not None:
            assert spike.mean == mean and spike.deviations == pytest.approx(6.1)


def test_each_spike_is_reported_once_and_noise_and_the_usual_decrease_are_not() -> None:
    curve = [10.8 * 0.99**step + 2 + noise for step, noise in enumerate(noisy(600, mean=0.0))]
    assert steps_with_spikes(curve) == []
    for step in (*range(300, 310), *range(400, 403)):
        curve[step - 1] += 2.0
    assert steps_with_spikes(curve) == [300, 400]


def test_a_lasting_increase_is_one_spike_and_becomes_the_new_level() -> None:
    losses = noisy(200) + noisy(1000, mean=5.0, seed=2)
    assert steps_with_spikes(losses) == [201]
    losses[-1] = 9.0
    assert steps_with_spikes(losses) == [201, 1200]


def test_nothing_is_reported_during_the_warm_up_or_for_a_constant_loss() -> None:
    assert steps_with_spikes([3.0, 3.1] * 24 + [50.0]) == []
    assert steps_with_spikes([2.0] * 100 + [2.0 + 1e-6]) == []


def test_training_reports_a_spike_at_the_same_step_after_a_resume(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With these limits, and without learning, the noise of the tiny training's loss has "spikes" of its own.
    monkeypatch.setattr(loss_spikes, "WARMUP_STEPS", 3)
    monkeypatch.setattr(loss_spikes, "SPIKE_DEVIATIONS", 0.3)
    monkeypatch.setattr(loss_spikes, "END_DEVIATIONS", 0.1)
    monkeypatch.setattr(loss_spikes, "SMALLEST_DEVIATION", 0.0)
    given = {"max_steps": 16, "epochs": 9, "learning_rate": 1e-9, "min_learning_rate": 0.0}
    config = make_config(training=given)
    whole = recorder()
    assert pretrain(config, tmp_path / "whole", whole, data_dir=data_dir) is Outcome.COMPLETED
    expected = whole.named("loss_spike")
    assert expected and all(set(event) == {"step", "loss", "mean", "deviations"} for event in expected)
    losses = whole.series("Losses/Total")
    found = LossStatistics()
    assert [event["step"] for event in expected] == [step for step, loss in losses.items() if found.add(loss)]
    assert all(event["loss"] == losses[event["step"]] for event in expected)
    first, second = recorder(StopRequest.PAUSE, after=30), recorder()
    assert pretrain(config, tmp_path / "paused", first, data_dir=data_dir) is Outcome.PAUSED
    assert pretrain(config, tmp_path / "paused", second, data_dir=data_dir) is Outcome.COMPLETED
    assert [*first.named("loss_spike"), *second.named("loss_spike")] == expected
    states = []
    for name in ("whole", "paused"):
        manager = CheckpointManager(tmp_path / name / "checkpoints", keep_last=3)
        newest = manager.latest()
        assert newest is not None
        states.append(manager.load(newest, "cpu")[1]["losses"])
    assert states[0] == states[1] and states[0]["count"] == len(losses)


def test_a_checkpoint_of_an_older_version_starts_a_new_warm_up() -> None:
    found = LossStatistics(count=70, mean=3.0, variance=0.1, in_spike=True)
    found.load_state_dict(None)
    assert found == LossStatistics()
