"""Checkpoints are written one at a time, all but the last in the background; a full disk does not end a training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from common.artifacts.best import read_best
from common.checkpoint import CheckpointInfo, CheckpointManager, CheckpointWriter, Score, TrainingSnapshot, host_copy
from common.errors import StorageError

SECONDS = 30.0


@dataclass
class Listener:
    """Records all reports of the writer. While `gate` is not set, the writer waits before it renames a checkpoint."""

    folder: Path
    gate: threading.Event = field(default_factory=threading.Event)
    at_gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    full: bool = False
    saved: list[CheckpointInfo] = field(default_factory=list)
    kept: list[Sequence[str]] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def before_checkpoint(self) -> None:
        self.at_gate.release()
        assert self.gate.wait(SECONDS)
        if self.full:
            raise StorageError("no space left")

    def checkpoint_saved(self, info: CheckpointInfo) -> None:
        assert (self.folder / info.name / "manifest.json").is_file(), "reported before the rename"
        self.saved.append(info)

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        self.kept.append(names)

    def event(self, name: str, **details: Any) -> None:
        self.events.append((name, details))

    def reached(self) -> None:
        """Wait until the writer is about to rename a checkpoint."""
        assert self.at_gate.acquire(timeout=SECONDS)


@dataclass
class Bench:
    writer: CheckpointWriter
    listener: Listener
    manager: CheckpointManager

    @property
    def steps(self) -> list[int]:
        return [info.step for info in self.listener.saved]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "checkpoints"
    listener = Listener(folder)
    manager = CheckpointManager(folder, keep_last=5)
    writer = CheckpointWriter(manager, listener, retry_seconds=0.0)
    yield Bench(writer, listener, manager)
    listener.gate.set()
    writer.close()


def snapshot(step: int, *, score: float | None = None) -> TrainingSnapshot:
    measured = None if score is None else Score("validation loss", score)
    return TrainingSnapshot(step, step, step, {"w": torch.full((4,), float(step))}, {"step": step}, {}, measured)


def capture(step: int) -> Callable[[], TrainingSnapshot]:
    return lambda: snapshot(step)


def test_a_training_continues_while_its_checkpoint_is_written(bench: Bench) -> None:
    assert bench.writer.submit(snapshot(1))
    bench.listener.reached()
    assert bench.steps == [] and bench.manager.list() == [], "no checkpoint is visible before the check of the lease"
    assert bench.writer.has_state(1)
    bench.listener.gate.set()
    bench.writer.close()
    assert bench.steps == [1]
    assert bench.listener.kept == [["step-000000001"]]


def test_a_newer_snapshot_replaces_the_pending_one(bench: Bench) -> None:
    bench.writer.submit(snapshot(1))
    bench.listener.reached()
    for step in (2, 3, 4):
        bench.writer.submit(snapshot(step))
    bench.listener.gate.set()
    bench.writer.close()
    assert bench.steps == [1, 4]


def test_a_pending_best_snapshot_is_not_replaced(bench: Bench) -> None:
    bench.writer.submit(snapshot(1))
    bench.listener.reached()
    assert bench.writer.submit(snapshot(2, score=3.5))
    assert not bench.writer.submit(snapshot(3))
    bench.listener.gate.set()
    bench.writer.close()
    assert bench.steps == [1, 2]
    best = read_best(bench.manager.directory)
    assert best is not None and (best.name, best.value) == ("checkpoints/step-000000002", 3.5)


def test_the_final_write_waits_for_the_running_write_and_drops_the_pending_snapshot(bench: Bench) -> None:
    bench.writer.submit(snapshot(1))
    bench.listener.reached()
    bench.writer.submit(snapshot(2))
    opener = threading.Timer(0.1, bench.listener.gate.set)
    opener.start()
    info = bench.writer.write_final(3, capture(3))
    assert info.step == 3
    assert bench.steps == [1, 3]


def test_a_pending_or_running_state_is_not_written_twice(bench: Bench) -> None:
    bench.writer.submit(snapshot(7))
    bench.listener.reached()
    threading.Timer(0.1, bench.listener.gate.set).start()
    assert bench.writer.write(7, capture(7)).step == 7
    assert bench.writer.write_final(7, capture(7)).step == 7
    assert bench.steps == [7]
    assert len(bench.manager.list()) == 1


def test_a_pending_best_state_is_written_by_the_final_write_of_the_same_state(bench: Bench) -> None:
    bench.writer.submit(snapshot(5))
    bench.listener.reached()
    bench.writer.submit(snapshot(5, score=1.5))
    threading.Timer(0.1, bench.listener.gate.set).start()
    bench.writer.write_final(5, capture(5))
    best = read_best(bench.manager.directory)
    assert best is not None and best.value == 1.5
    assert len(bench.manager.list()) == 1, "the older checkpoint of the same step is removed"


def test_a_pending_best_snapshot_is_written_before_the_last_state(bench: Bench) -> None:
    bench.writer.submit(snapshot(4))
    bench.listener.reached()
    bench.writer.submit(snapshot(5, score=1.5))
    threading.Timer(0.1, bench.listener.gate.set).start()
    assert bench.writer.write_final(6, capture(6)).step == 6
    assert bench.steps == [4, 5, 6]
    best = read_best(bench.manager.directory)
    assert best is not None and best.name == "checkpoints/step-000000005"


def test_a_full_disk_is_reported_as_an_event_and_the_next_write_succeeds(bench: Bench) -> None:
    bench.listener.gate.set()
    bench.writer.write(1, capture(1))
    bench.listener.full = True
    bench.writer.submit(snapshot(2))
    _until(lambda: not bench.writer.has_state(2))
    bench.writer.submit(snapshot(3))
    _until(lambda: not bench.writer.has_state(3))
    assert [(name, details["step"]) for name, details in bench.listener.events] == [("checkpoint_failed", 2)]
    assert bench.writer.retry_is_due
    assert [info.step for info in bench.manager.list()] == [1]
    assert sorted(path.name for path in bench.manager.directory.iterdir()) == ["step-000000001"]
    bench.listener.full = False
    bench.writer.submit(snapshot(4))
    bench.writer.close()
    assert bench.steps == [1, 4]
    assert not bench.writer.retry_is_due


def test_a_retry_is_not_due_while_another_write_is_running(bench: Bench) -> None:
    bench.listener.gate.set()
    bench.listener.full = True
    bench.writer.submit(snapshot(1))
    _until(lambda: not bench.writer.has_state(1))
    assert bench.writer.retry_is_due
    bench.listener.gate.clear()
    bench.writer.submit(snapshot(2))
    assert not bench.writer.retry_is_due


def test_the_final_write_on_a_full_disk_reports_the_remaining_checkpoint(bench: Bench) -> None:
    bench.listener.gate.set()
    bench.writer.write(1, capture(1))
    bench.listener.full = True
    assert bench.writer.write_final(2, capture(2)).step == 1
    [(name, details)] = bench.listener.events
    assert (name, details["left_with_step"], details["reason"]) == ("checkpoint_failed", 1, "no space left")


def test_the_final_write_on_a_full_disk_without_any_checkpoint_raises(bench: Bench) -> None:
    bench.listener.gate.set()
    bench.listener.full = True
    with pytest.raises(StorageError, match="no space left"):
        bench.writer.write_final(1, capture(1))


def test_an_error_in_the_state_is_raised_in_the_training(bench: Bench) -> None:
    bench.listener.gate.set()
    bench.writer.submit(TrainingSnapshot(1, 1, 1, {}, {"path": Path("x")}, {}))
    _until(lambda: not bench.writer.has_state(1))
    with pytest.raises(TypeError, match="use only tensors, numbers, text"):
        bench.writer.submit(snapshot(2))


def test_a_copy_does_not_follow_later_training() -> None:
    weight = torch.ones(3)
    state: dict[str, Any] = {"state": {0: {"moment": weight}}, "groups": [{"lr": 0.1, "params": (0, 1)}]}
    copy = host_copy(state)
    with torch.no_grad():
        weight.add_(1.0)
    state["groups"][0]["lr"] = 0.2
    assert torch.equal(copy["state"][0]["moment"], torch.ones(3))
    assert copy["groups"] == [{"lr": 0.1, "params": (0, 1)}]


def _until(check: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(1000):
        if check():
            return
        done.wait(0.01)
    raise AssertionError("not seen within 10 s")
