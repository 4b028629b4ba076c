"""A controller training waits for disk space between iterations and gives the same numbers as without a wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.checkpoint import CheckpointManager
from common.controller import load_policy
from common.disk import MIB, Shortage
from common.rl.export import FINAL_POLICY
from common.training import disk_wait
from common.training.hooks import Outcome, StopRequest
from tests.unit.common.rl.toys import toy_config
from tests.unit.common.rl.trainings import Listener, comparable, run_training

FULL = Shortage("experiments", 700 * MIB, 1024 * MIB, 1024 * MIB)


class FullDisk(Listener):
    """Hooks that report a full disk in the first `checks` checks of the disk after the first iteration.

    Once the training has reported four times that it waits, they return the stop request `request`, if it is not None.
    """

    def __init__(self, checks: int, request: StopRequest | None = None) -> None:
        super().__init__()
        self.checks, self.request, self.waits = checks, request, 0

    def disk_shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        if not self.points or self.checks == 0:
            return None
        self.checks -= 1
        return FULL

    def waiting_for_disk(self, shortage: Shortage | None) -> None:
        self.waits += shortage is not None

    def requested_stop(self) -> StopRequest | None:
        return self.request if self.waits > 3 else None


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "REPORT_SECONDS"):
        monkeypatch.setattr(disk_wait, name, 0.005)
    monkeypatch.setattr(disk_wait._DiskWait.wait, "__kwdefaults__", {"seconds": 0.01})


def test_a_training_that_waited_continues_by_itself_with_equal_numbers(tmp_path: Path) -> None:
    _, calm = run_training(tmp_path / "calm")
    outcome, waited = run_training(tmp_path / "waited", hooks=FullDisk(8))
    assert outcome is Outcome.COMPLETED and waited.waits > 3  # type: ignore[attr-defined]
    assert comparable(waited) == comparable(calm)
    one, other = (load_policy(tmp_path / name / FINAL_POLICY).state_dict() for name in ("calm", "waited"))
    assert all(one[name].equal(other[name]) for name in one)
    [reported] = [details for name, details in waited.events if name == "waiting_for_disk"]
    assert reported["saved"] is True


@pytest.mark.parametrize("request_", [StopRequest.PAUSE, StopRequest.STOP])
def test_a_stop_request_during_the_wait_keeps_the_last_iteration(request_: StopRequest, tmp_path: Path) -> None:
    config = toy_config()
    outcome, hooks = run_training(tmp_path, config, FullDisk(1000, request_))
    assert outcome.value == {"pause": "paused", "stop": "stopped"}[request_.value]
    newest = CheckpointManager(tmp_path / "checkpoints", keep_last=3, prefix="iter").latest()
    assert newest is not None and newest.step == len(hooks.points) == 1
