"""All added points are read back from the archive, despite disk errors and new attempts."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from common.metrics import MetricsWriter, metric_names
from common.metrics import writer as writer_module
from tests.metrics_oracle import read_metrics


def make_writer(directory: Path, attempt: int = 1, **options: Any) -> MetricsWriter:
    return MetricsWriter(directory, None, "e1", "j1", attempt, **options)


def test_every_point_comes_back_in_order_of_steps(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        for step in range(1, 1001):
            writer.add("metrics", step, {"loss": 1 / step, "learning_rate": 0.1})
        writer.add("rl-metrics", 7, {"episode_reward": 0.5})
    points = read_metrics(tmp_path, "metrics")
    assert [p.step for p in points] == list(range(1, 1001))
    assert points[3].values == {"loss": 0.25, "learning_rate": 0.1}
    assert [p.values for p in read_metrics(tmp_path, "rl-metrics")] == [{"episode_reward": 0.5}]
    assert writer.written == 1001
    assert writer.dropped == 0


def test_points_reach_the_disk_while_the_writer_is_open(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    writer.add("metrics", 1, {"loss": 2.0})
    writer.flush()
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == [1]
    writer.close()


def test_segments_turn_over_by_size_and_lose_nothing(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, segment_bytes=500)
    for step in range(40):
        writer.add("metrics", step, {"loss": float(step)})
        writer.flush()
    writer.close()
    names = sorted(path.name for path in (tmp_path / "metrics").iterdir())
    assert len(names) > 3
    assert "metrics-1-1.jsonl" in names
    assert [p.values["loss"] for p in read_metrics(tmp_path, "metrics")] == [float(s) for s in range(40)]


def test_segments_turn_over_by_age(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, segment_seconds=0.0)
    for step in range(3):
        writer.add("metrics", step, {"loss": 1.0})
        writer.flush()
    writer.close()
    assert len(list((tmp_path / "metrics").iterdir())) == 3


def test_a_second_writer_of_one_attempt_never_overwrites(tmp_path: Path) -> None:
    for step in (1, 2):
        with make_writer(tmp_path) as writer:
            writer.add("metrics", step, {"loss": 1.0})
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == [1, 2]


def test_the_highest_attempt_is_valid_and_a_rewind_voids_later_points(tmp_path: Path) -> None:
    with make_writer(tmp_path, attempt=1) as first:
        for step in range(1, 11):
            first.add("metrics", step, {"loss": 1.0})
    with make_writer(tmp_path, attempt=2) as second:
        second.rewind(5)
        for step in (6, 7):
            second.add("metrics", step, {"loss": 2.0})
    points = read_metrics(tmp_path, "metrics")
    assert [(p.step, p.attempt) for p in points] == [(s, 1) for s in range(1, 6)] + [(6, 2), (7, 2)]


def test_attempt_ten_comes_after_attempt_nine(tmp_path: Path) -> None:
    for attempt in (9, 10):
        with make_writer(tmp_path, attempt=attempt) as writer:
            writer.add("metrics", 1, {"loss": float(attempt)})
    assert [p.values for p in read_metrics(tmp_path, "metrics")] == [{"loss": 10.0}]


def test_selection_by_name_step_and_count(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        for step in range(1, 11):
            writer.add("metrics", step, {"loss": float(step)})
            if step % 5 == 0:
                writer.add("metrics", step, {"validation_loss": -float(step)})
    assert metric_names(tmp_path, "metrics") == ["loss", "validation_loss"]
    assert read_metrics(tmp_path, "metrics")[4].values == {"loss": 5.0, "validation_loss": -5.0}
    assert [p.step for p in read_metrics(tmp_path, "metrics", keys=["validation_loss"])] == [5, 10]
    assert [p.step for p in read_metrics(tmp_path, "metrics", after_step=8)] == [9, 10]
    assert [p.step for p in read_metrics(tmp_path, "metrics", last=3)] == [8, 9, 10]
    assert read_metrics(tmp_path / "nothing", "metrics") == []


def test_values_that_are_not_finite_become_null(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        writer.add("metrics", 1, {"a": math.nan, "b": math.inf, "c": 1.5})
    [path] = (tmp_path / "metrics").iterdir()
    assert json.loads(path.read_text())["values"] == {"a": None, "b": None, "c": 1.5}


def test_an_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        writer.add("metrics", 1, {"loss": 1.0})
    [path] = (tmp_path / "metrics").iterdir()
    with path.open("a") as file:
        file.write('{"step": 2, "ti')
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == [1]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer, pytest.raises(ValueError, match="'speed'"):
        writer.add("speed", 1, {})


def test_points_wait_in_memory_while_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file where the folder should be")
    writer = make_writer(tmp_path)
    for step in range(5):
        writer.add("metrics", step, {"loss": 1.0})
    writer.flush()
    assert (writer.written, writer.dropped) == (0, 0)
    (tmp_path / "metrics").unlink()
    writer.close()
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == [0, 1, 2, 3, 4]


def test_points_lost_to_a_full_disk_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 10)
    (tmp_path / "metrics").write_text("in the way")
    writer = make_writer(tmp_path, flush_seconds=60.0)
    for step in range(25):
        writer.add("metrics", step, {"loss": 1.0})
    writer.flush()
    assert writer.dropped == 15
    (tmp_path / "metrics").unlink()
    writer.close()
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == list(range(15, 25))


def test_points_of_many_threads_all_arrive(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        threads = [
            threading.Thread(target=lambda t=t: [writer.add("metrics", t * 100 + i, {"v": 1.0}) for i in range(100)])
            for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == list(range(400))
