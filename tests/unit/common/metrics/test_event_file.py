"""TensorBoard event files contain every point, hide repeated steps after a resume, and never disturb a training."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.metrics import EventFile, MetricsWriter, read_table
from common.metrics import event_file as module
from tests.unit.tensorboard_reader import shown


def write(directory: Path, attempt: int, points: dict[int, float], *, after: int | None = None) -> None:
    with MetricsWriter(directory, None, "e", "j", attempt, event_file=EventFile(directory, attempt)) as writer:
        if after is not None:
            writer.rewind(after)
        for step, value in points.items():
            writer.add("metrics", step, {"Losses/Total": value, "Learning Rate": 2 * value})
            writer.add("rl-metrics", step, {"reward/diversity": -value})


def test_event_files_contain_every_point_of_both_kinds(tmp_path: Path) -> None:
    points = {step: step / 4 for step in range(1, 400)}
    write(tmp_path, 1, points)
    found = shown(tmp_path / "tensorboard_logs")
    assert found["Losses/Total"] == list(points.items())
    assert found["Learning Rate"] == [(step, 2 * value) for step, value in points.items()]
    assert found["reward/diversity"] == [(step, -value) for step, value in points.items()]


def test_a_resume_shows_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, 1, dict.fromkeys(range(1, 11), 1.0))
    write(tmp_path, 2, dict.fromkeys(range(7, 15), 2.0), after=6)
    found = shown(tmp_path / "tensorboard_logs")["Losses/Total"]
    assert found == [(step, 1.0 if step <= 6 else 2.0) for step in range(1, 15)]


def test_values_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    write(tmp_path, 1, {1: math.inf, 2: math.nan})
    first, second = shown(tmp_path / "tensorboard_logs")["Losses/Total"]
    assert first == (1, math.inf) and math.isnan(second[1])


def test_errors_are_logged_once_and_the_archive_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorboard_logs").write_text("a file where the folder should be")
    logged: list[str] = []
    monkeypatch.setattr(module.log, "warning", lambda text, **_: logged.append(text))
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    event_file = EventFile(tmp_path, 1)
    with MetricsWriter(tmp_path, None, "e", "j", 1, event_file=event_file, flush_seconds=0.01) as writer:
        for step in range(1, 4):
            writer.add("metrics", step, {"loss": 1.0})
            until_idle(event_file)
    assert len(logged) == 1
    assert read_table(tmp_path, "metrics", ["loss"]).series("loss")[0].tolist() == [1, 2, 3]


def until_idle(event_file: EventFile) -> None:
    while event_file.is_behind:
        time.sleep(0.002)


def test_after_an_error_a_new_file_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    event_file = EventFile(tmp_path, 1)
    event_file.add(1, 0.0, {"loss": 1.0})
    event_file.write(flush=True)

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(event_file._records, "flush", full)
    event_file.add(2, 0.0, {"loss": 2.0})
    event_file.write(flush=True)
    event_file.add(3, 0.0, {"loss": 3.0})
    event_file.close()
    steps = [step for step, _ in shown(tmp_path / "tensorboard_logs")["loss"]]
    assert steps[0] == 1 and steps[-1] == 3
    assert len(list((tmp_path / "tensorboard_logs").iterdir())) == 2


def test_importing_the_metrics_does_not_import_tensorboardx() -> None:
    code = "import sys, common.metrics, services.trainer.child; print('tensorboardX' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
