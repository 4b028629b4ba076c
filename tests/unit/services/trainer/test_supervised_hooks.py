"""The hooks of a trainer child: rate-limited progress, suspension, and the emergency exit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.child.lease_guard import LeaseGuard, lease_clock
from common.child.protocol import (
    Channel,
    CheckpointSaved,
    CheckpointsWithdrawn,
    Failed,
    Finished,
    HistoryEvent,
    Ping,
    Progress,
    Running,
    Suspend,
)
from common.errors import StorageError
from common.metrics import MetricsWriter
from common.training.hooks import StopRequest
from services.trainer.supervised_hooks import SupervisedHooks
from tests.metrics_oracle import read_metrics


@dataclass(frozen=True)
class Info:
    name: str = "step-000000004"
    step: int = 4
    sha256: str = "ab"
    size_bytes: int = 10


@dataclass
class Bench:
    """Hooks with the supervisor's end of the channel.

    `exits` records the exit codes with which the hooks would end the process.
    """

    hooks: SupervisedHooks
    supervisor: Channel
    exits: list[int]
    ended: threading.Event


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    supervisor, child_end = Channel.pair()
    channel = Channel(child_end)
    exits: list[int] = []
    ended = threading.Event()

    def end(code: int) -> None:
        exits.append(code)
        ended.set()

    writer = MetricsWriter(tmp_path, None, "e", "job_1", 1)
    hooks = SupervisedHooks(channel, writer, LeaseGuard(60.0), attempt=1, urgent_seconds=0.05, end_process=end)
    yield Bench(hooks, supervisor, exits, ended)
    hooks.finish()
    supervisor.close()
    channel.close()


def wait_for_the_emergency_exit() -> None:
    """Wait until every thread that may end the process in the middle of a step has finished."""
    for thread in threading.enumerate():
        if thread.name == "urgent-stop":
            thread.join(10)
            assert not thread.is_alive()


def observe_waits(lease_guard: LeaseGuard) -> threading.Event:
    """Return an event that is set when a thread starts to wait for a valid lease."""
    blocked = threading.Event()

    class Observed(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            blocked.set()
            return super().wait(timeout)

    lease_guard._changed = Observed()
    return blocked


def test_a_stop_request_that_the_loop_does_not_read_is_obeyed_by_another_thread(bench: Bench) -> None:
    def save() -> Info:
        bench.hooks.checkpoint_saved(Info())
        return Info()

    bench.hooks.offer_checkpoint(save)
    bench.hooks.request(StopRequest.DRAIN)
    assert bench.supervisor.receive(10) == CheckpointSaved(
        name="checkpoints/step-000000004", step=4, sha256="ab", size_bytes=10
    )
    assert bench.supervisor.receive(10) == Finished(outcome="drained")
    assert bench.ended.wait(10)
    assert bench.exits == [0]


def test_complete_causes_no_emergency_exit(bench: Bench) -> None:
    called = threading.Event()
    bench.hooks.offer_checkpoint(lambda: called.set())
    bench.hooks.request(StopRequest.COMPLETE)
    wait_for_the_emergency_exit()
    assert not called.is_set()


def test_complete_after_a_pause_that_was_not_obeyed_yet_lets_the_training_complete(bench: Bench) -> None:
    called = threading.Event()
    bench.hooks.offer_checkpoint(lambda: called.set())
    bench.hooks.request(StopRequest.PAUSE)
    bench.hooks.request(StopRequest.COMPLETE)
    wait_for_the_emergency_exit()
    assert not called.is_set()
    bench.hooks.request(StopRequest.DRAIN)
    assert called.wait(10), "a later stop request starts another emergency exit"
    assert bench.exits == []


def test_complete_during_the_emergency_save_does_not_count_as_completed(bench: Bench) -> None:
    def save() -> Info:
        bench.hooks.request(StopRequest.COMPLETE)
        return Info()

    bench.hooks.offer_checkpoint(save)
    bench.hooks.request(StopRequest.PAUSE)
    assert bench.supervisor.receive(10) == Finished(outcome="paused")
    assert bench.ended.wait(10)


@pytest.mark.parametrize("answer", [None, "withdrawn"])
def test_a_training_that_is_ending_already_is_not_ended_by_the_emergency_exit(bench: Bench, answer: str | None) -> None:
    called = threading.Event()

    def save() -> None:
        called.set()

    bench.hooks.offer_checkpoint(save if answer is None else None)
    bench.hooks.request(StopRequest.PAUSE)
    wait_for_the_emergency_exit()
    assert called.is_set() is (answer is None)
    bench.hooks.finish()
    assert bench.exits == []


def test_a_drain_is_obeyed_although_the_disk_takes_no_checkpoint(bench: Bench) -> None:
    def save() -> Any:
        raise StorageError("disk full")

    bench.hooks.offer_checkpoint(save)
    bench.hooks.request(StopRequest.DRAIN)
    event = bench.supervisor.receive(10)
    assert isinstance(event, HistoryEvent) and event.name == "checkpoint_failed"
    assert event.details["reason"] == "disk full"
    assert bench.supervisor.receive(10) == Finished(outcome="drained")
    assert bench.ended.wait(10)


def test_metrics_are_on_disk_and_the_lease_is_sure_before_a_checkpoint_shows(bench: Bench, tmp_path: Path) -> None:
    bench.hooks.lease_guard.handle(Suspend())
    blocked = observe_waits(bench.hooks.lease_guard)
    bench.hooks.report_metrics("metrics", 4, {"Losses/Total": 1.0})
    passed = threading.Event()

    def publish() -> None:
        bench.hooks.before_checkpoint()
        passed.set()

    thread = threading.Thread(target=publish)
    thread.start()
    assert blocked.wait(10)
    assert not passed.is_set()
    assert [point.step for point in read_metrics(tmp_path, "metrics")] == [4]
    bench.hooks.lease_guard.handle(Ping(renewed_at=lease_clock()))
    assert passed.wait(10)
    thread.join()


def test_no_checkpoint_shows_while_the_metrics_before_it_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file where a folder should be")
    bench.hooks.report_metrics("metrics", 4, {"Losses/Total": 1.0})
    with pytest.raises(StorageError, match="metrics"):
        bench.hooks.before_checkpoint()


def test_the_validation_of_a_resumed_attempt_comes_after_its_rewind(tmp_path: Path) -> None:
    supervisor, child_end = Channel.pair()
    hooks = SupervisedHooks(
        Channel(child_end), MetricsWriter(tmp_path, None, "e", "job_1", 2), LeaseGuard(60.0), attempt=2
    )
    hooks.report_metrics("metrics", 4, {"Losses/Validation": 2.0})
    hooks.report_progress(4, 10)
    hooks.finish()
    lines = (tmp_path / "metrics" / "metrics-2-1.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"rewind": {"attempt": 2, "step": 4}}
    assert len(lines) == 2
    supervisor.close()
    child_end.close()


def test_a_full_disk_during_the_emergency_exit_of_a_pause_is_reported(bench: Bench) -> None:
    def save() -> Any:
        raise StorageError("disk full")

    bench.hooks.offer_checkpoint(save)
    bench.hooks.request(StopRequest.PAUSE)
    assert bench.supervisor.receive(10) == Failed(code="storage", message="disk full")
    assert bench.ended.wait(10)
    assert bench.exits == [1]


def test_an_unexpected_error_in_the_emergency_exit_ends_the_process(bench: Bench) -> None:
    def save() -> Any:
        raise RuntimeError("no such tensor")

    bench.hooks.offer_checkpoint(save)
    bench.hooks.request(StopRequest.DRAIN)
    failed = bench.supervisor.receive(10)
    assert isinstance(failed, Failed) and failed.code == "internal_error" and "no such tensor" in failed.message
    assert bench.ended.wait(10)
    assert bench.exits == [1]


def test_progress_is_limited_but_the_last_step_is_always_sent(bench: Bench) -> None:
    for step in range(1000):
        bench.hooks.report_progress(step, 1000)
    bench.hooks.report_progress(1000, 1000)
    bench.hooks.phase("over")
    seen = []
    while (message := bench.supervisor.receive(10)) is not None and message.type != "phase":
        seen.append(message)
    assert seen[0] == Running()
    assert seen[1] == Progress(step=0, total_steps=1000)
    assert seen[-1] == Progress(step=1000, total_steps=1000)
    assert len(seen) < 20


def test_a_suspended_training_waits_until_it_may_continue(bench: Bench) -> None:
    bench.hooks.lease_guard.handle(Suspend())
    blocked = observe_waits(bench.hooks.lease_guard)
    passed = threading.Event()

    def wait() -> None:
        bench.hooks.wait_while_suspended()
        passed.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert blocked.wait(10)
    assert not passed.is_set()
    bench.hooks.lease_guard.handle(Ping(renewed_at=lease_clock()))
    assert passed.wait(10)
    thread.join()


def test_a_disconnected_supervisor_ends_the_process(bench: Bench) -> None:
    bench.supervisor.close()
    ending: Callable[[], bool] = bench.ended.is_set
    for _ in range(100):
        bench.hooks.phase("training")
        if ending():
            break
    assert bench.exits[0] == 1


def test_every_reported_point_is_a_line_of_the_log(bench: Bench) -> None:
    with capture_logs() as logged:
        for step in (1, 2, 3):
            bench.hooks.report_metrics("metrics", step, {"Losses/Total": 10.0 / step, "Learning Rate": 1e-3})
    lines = [(line["event"], line["Losses/Total"], line["Learning Rate"]) for line in logged]
    assert lines == [("step 1", 10.0, 0.001), ("step 2", 5.0, 0.001), ("step 3", 3.3333, 0.001)]


def test_withdrawn_checkpoints_are_sent_to_the_supervisor(bench: Bench) -> None:
    bench.hooks.checkpoints_withdrawn(["step-000000008"], None)
    assert bench.supervisor.receive(10) == CheckpointsWithdrawn(names=["checkpoints/step-000000008"])
