"""The newest, every n-th and the best checkpoint are kept; damaged checkpoint folders do not count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.artifacts.best import BestCheckpoint, read_best, write_best
from common.checkpoint import CheckpointManager
from common.checkpoint.retention import CheckpointRetention


def folders(*steps: int) -> list[tuple[int, str]]:
    return [(step, f"step-{step}") for step in steps]


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "best", "kept"),
    [
        (2, None, None, ["step-9", "step-12"]),
        (1, 4, None, ["step-4", "step-8", "step-12"]),
        (1, None, "step-5", ["step-5", "step-12"]),
        (2, 5, "step-4", ["step-4", "step-5", "step-9", "step-12"]),
        (9, None, "no such", ["step-2", "step-4", "step-5", "step-8", "step-9", "step-12"]),
    ],
)
def test_the_newest_the_nth_and_the_best_checkpoints_are_kept(
    keep_last: int, keep_every: int | None, best: str | None, kept: list[str]
) -> None:
    assert CheckpointRetention(keep_last, keep_every).names_to_keep(folders(2, 4, 5, 8, 9, 12), best) == kept


def test_of_one_step_written_twice_the_newer_stays_and_counts_once() -> None:
    found = [(4, "step-4"), (6, "step-6"), (6, "step-6.1")]
    assert CheckpointRetention(2).names_to_keep(found, None) == ["step-4", "step-6.1"]
    assert CheckpointRetention(1).names_to_keep(found, "step-6") == ["step-6", "step-6.1"]


@given(st.lists(st.integers(0, 50), min_size=1, unique=True), st.integers(1, 5), st.none() | st.integers(1, 10))
def test_the_newest_is_never_dropped(steps: list[int], keep_last: int, keep_every: int | None) -> None:
    found = folders(*sorted(steps))
    kept = CheckpointRetention(keep_last, keep_every).names_to_keep(found, None)
    assert kept[-1] == found[-1][1]
    assert len(kept) >= min(keep_last, len(found))


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="keep_last is 0"):
        CheckpointRetention(0)
    with pytest.raises(ValueError, match="keep_every is 0"):
        CheckpointRetention(1, 0)


def save(manager: CheckpointManager, step: int) -> None:
    manager.save(step, {"w": torch.tensor([float(step)])}, {"step": step}, meta={})


def test_a_damaged_checkpoint_that_was_passed_over_is_not_counted_among_the_newest(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=2)
    for step in (1, 2, 3):
        save(manager, step)
    weights = tmp_path / "step-000000003/weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # only the hash detects this change
    weights.write_bytes(data)
    newest = manager.latest()
    assert newest is not None and newest.step == 2
    manager.rename_damaged(manager.skipped[0])
    assert manager.prune() == ["step-000000001", "step-000000002"]
    # A manager of a later attempt does not know which checkpoint the first one has skipped.
    later = CheckpointManager(tmp_path, keep_last=2)
    save(later, 3)
    assert later.prune() == ["step-000000002", "step-000000003"]
    newest = later.latest()
    assert newest is not None and newest.name == "step-000000003" and later.skipped == []
    save(later, 4)
    save(later, 5)
    later.prune()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000004", "step-000000005"]


def test_the_best_stays_until_another_is_named(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "checkpoints", keep_last=1)
    save(manager, 1)
    manager.record_best(BestCheckpoint("checkpoints/step-000000001", "validation loss", 2.5, 1))
    for step in (2, 3):
        save(manager, step)
        manager.prune()
    assert [info.step for info in manager.list()] == [1, 3]
    manager.record_best(BestCheckpoint("checkpoints/step-000000003", "validation loss", 2.0, 3))
    save(manager, 4)
    manager.prune()
    assert [info.step for info in manager.list()] == [3, 4]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"name": "checkpoints/missing", "metric": "m", "value": 1, "step": 1}', '{"name": "../../x"}'],
)
def test_a_best_entry_without_a_file_is_ignored(text: str, tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(text)
    assert read_best(tmp_path) is None


def test_a_best_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"weights")
    best = BestCheckpoint("model.pth", "validation loss", 1.25, 40)
    write_best(tmp_path / "checkpoints", best)
    assert read_best(tmp_path / "checkpoints") == best
