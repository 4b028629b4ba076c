"""Fault 17 of 31: one of two reapers is killed or suspended while it works; the other one acts exactly once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis

from common.redis.keys import HEALTH
from tests.faults.fault_fleet import FaultFleet
from tests.integration.worker.fleet import LONG


@pytest.mark.core_fault
def test_fault_17_a_reaper_killed_in_the_middle_is_replaced_by_the_other_one(
    fleet: FaultFleet, redis_client: redis.Redis, tmp_path: Path
) -> None:
    fleet.streams = True
    mark = tmp_path / "judged"
    other = fleet.processes["health"]
    job_id = fleet.submit()
    fleet.worker("first", plan=LONG)
    fleet.wait_steps(job_id, 6, seconds=fleet.timers.patience)
    fleet.worker("second", plan=LONG)
    fleet.start("health-2", "tests.faults.dying", DIES_AT="in_reap", DIES_MARK=str(mark))
    second_pid = str(fleet.processes["health-2"].pid)
    fleet.wait_for(lambda: redis_client.hget(HEALTH, "pid") == second_pid, "the second reaper", 60)
    # As the other reaper is suspended, the reaper that will be killed does the next sweep.
    other.send_signal(signal.SIGSTOP)
    fleet.kill("first")
    fleet.wait_for(mark.exists, "a judgement", fleet.timers.patience, job_id)
    other.send_signal(signal.SIGCONT)
    redis_client.delete(HEALTH)
    fleet.wait_for(lambda: bool(redis_client.exists(HEALTH)), "a sweep of the first reaper", 30)
    assert "stale" not in fleet.statuses(job_id), "two reapers judged at once"
    fleet.kill("health-2")
    fleet.wait_steps(job_id, 1, attempt=2, seconds=fleet.timers.patience)
    names = fleet.event_names(job_id)
    assert (names.count("stale"), names.count("restarted"), names.count("claimed")) == (1, 1, 2)
    assert fleet.job(job_id).infra_restarts <= 1
    fleet.signal(job_id, "stop")
    fleet.wait_status(job_id, "cancelled", seconds=fleet.timers.patience)


def test_fault_17_a_reaper_that_is_suspended_with_the_lock_delays_the_other_one_briefly(
    fleet: FaultFleet, tmp_path: Path
) -> None:
    mark = tmp_path / "locked"
    job_id = fleet.submit()
    fleet.worker("first", plan=LONG)
    fleet.wait_steps(job_id, 6, seconds=fleet.timers.patience)
    fleet.start("health-2", "tests.faults.dying", DIES_AT="in_lock", DIES_MARK=str(mark))
    waiting = fleet.submit()  # With a pending job, every sweep has work to do.
    fleet.wait_for(mark.exists, "the lock in a frozen hand", fleet.timers.patience, job_id)
    fleet.kill("first")
    fleet.worker("second", plan=LONG)
    fleet.wait_steps(job_id, 1, attempt=2, seconds=fleet.timers.patience)
    names = fleet.event_names(job_id)
    assert (names.count("stale"), names.count("restarted"), names.count("claimed")) == (1, 1, 2)
    fleet.kill("health-2")
    for each in (job_id, waiting):
        fleet.signal(each, "stop")
        fleet.wait_status(each, "cancelled", seconds=fleet.timers.patience)
