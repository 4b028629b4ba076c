"""After the machine was suspended, a trainer does not continue under a lease from before the suspension."""

from __future__ import annotations

import time

import pytest

from common.child import lease_guard as child_lease_guard
from common.child.lease_guard import LeaseGuard, lease_clock


def test_the_lease_clock_never_lags_behind_the_clock_that_stops_in_sleep() -> None:
    awake = time.monotonic()
    first = lease_clock()
    assert first >= awake
    assert lease_clock() >= first


def test_a_trainer_that_slept_with_its_machine_is_suspended_before_its_next_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    awake = time.monotonic()
    slept = 0.0
    monkeypatch.setattr(child_lease_guard, "lease_clock", lambda: awake + slept)
    line = LeaseGuard(pause_after_seconds=40)
    assert not line.suspended()
    slept = 3600.0
    assert line.suspended()
