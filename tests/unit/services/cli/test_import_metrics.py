"""Imported metrics of the original project can be read with Tidal's reader, whatever their format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.cli.import_metrics import write_metrics, write_rl_metrics
from tests.metrics_oracle import read_metrics


def test_flat_lines_become_points(tmp_path: Path) -> None:
    source = tmp_path / "metrics.jsonl"
    lines: list[Any] = [
        {"step": 1, "timestamp": "2026-01-31T12:00:00+00:00", "Losses/Total": 9.5, "Learning Rate": 0.001},
        {"step": 2, "timestamp": 1769860801.0, "Losses/Total": float("nan"), "note": "text is no value"},
        {"no": "step"},
    ]
    source.write_text("\n".join(json.dumps(line) for line in lines) + '\n\n{"step": 3, "Losses/To')
    assert write_metrics(source, tmp_path) == (2, 2)
    points = read_metrics(tmp_path, "metrics")
    assert [(p.step, p.attempt, p.values) for p in points] == [
        (1, 1, {"Losses/Total": 9.5, "Learning Rate": 0.001}),
        (2, 1, {"Losses/Total": None}),
    ]
    assert [p.time for p in points] == ["2026-01-31T12:00:00Z", "2026-01-31T12:00:01Z"]


@pytest.mark.parametrize(
    "content",
    [
        [{"step": 0, "reward": 0.5}, {"step": 1, "reward": 0.75}],
        {"points": [{"iteration": 0, "reward": 0.5}, {"iteration": 1, "reward": 0.75}]},
        {"reward": [0.5, 0.75]},
    ],
    ids=["list", "points", "columns"],
)
def test_controller_metrics_come_in_three_forms(tmp_path: Path, content: Any) -> None:
    source = tmp_path / "rl_training_metrics.json"
    source.write_text(json.dumps(content))
    assert write_rl_metrics(source, tmp_path) == (2, 0)
    assert [(p.step, p.values) for p in read_metrics(tmp_path, "rl-metrics")] == [
        (0, {"reward": 0.5}),
        (1, {"reward": 0.75}),
    ]


def test_a_damaged_file_gives_no_points_and_is_counted(tmp_path: Path) -> None:
    source = tmp_path / "rl_training_metrics.json"
    source.write_text('{"reward": [0.5,')
    assert write_rl_metrics(source, tmp_path) == (0, 1)
