"""A controller training waits for its disk between two iterations, and comes to the numbers of one that did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.checkpoint import CheckpointManager
from common.controller import load_policy
from common.disk import MIB, Shortage
from common.rl.export import FINAL_POLICY
from common.training import disk_hold
from common.training.hooks import Outcome, StopRequest
from tests.unit.rl.test_train import Listener, _comparable, _train
from tests.unit.rl.toys import toy_config

FULL = Shortage("experiments", 700 * MIB, 1024 * MIB, 1024 * MIB)


class Short(Listener):
    """A disk that has no room once an iteration is done, for so many looks; a wish after so many signs of life."""

    def __init__(self, looks: int, wish: StopRequest | None = None) -> None:
        super().__init__()
        self.looks, self.wish, self.waits = looks, wish, 0

    def disk_shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        if not self.points or self.looks == 0:
            return None
        self.looks -= 1
        return FULL

    def waiting_for_disk(self, shortage: Shortage | None) -> None:
        self.waits += shortage is not None

    def requested_stop(self) -> StopRequest | None:
        return self.wish if self.waits > 3 else None


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_SECONDS", "BEAT_SECONDS"):
        monkeypatch.setattr(disk_hold, name, 0.005)
    monkeypatch.setattr(disk_hold._Hold.wait, "__kwdefaults__", {"seconds": 0.01})


def test_it_goes_on_by_itself_with_equal_numbers(tmp_path: Path) -> None:
    _, calm = _train(tmp_path / "calm")
    outcome, waited = _train(tmp_path / "waited", hooks=Short(8))
    assert outcome is Outcome.COMPLETED and waited.waits > 3  # type: ignore[attr-defined]
    assert _comparable(waited) == _comparable(calm)
    one, other = (load_policy(tmp_path / name / FINAL_POLICY).state_dict() for name in ("calm", "waited"))
    assert all(one[name].equal(other[name]) for name in one)
    [told] = [details for name, details in waited.events if name == "waiting_for_disk"]
    assert told["saved"] is True


@pytest.mark.parametrize("wish", [StopRequest.PAUSE, StopRequest.STOP])
def test_it_leaves_with_its_last_iteration(wish: StopRequest, tmp_path: Path) -> None:
    config = toy_config()
    outcome, hooks = _train(tmp_path, config, Short(1000, wish))
    assert outcome.value == {"pause": "paused", "stop": "stopped"}[wish.value]
    newest = CheckpointManager(tmp_path / "checkpoints", keep_last=3, prefix="iter").latest()
    assert newest is not None and newest.step == len(hooks.points) == 1
