"""Fault 17 of 31: one of two reapers is killed or suspended while it works; the other one acts exactly once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis

from common.redis.keys import HEALTH
from tests.faults.fault_workers import FaultWorkers
from tests.integration.worker.workers import LONG


@pytest.mark.core_fault
def test_fault_17_a_reaper_killed_in_the_middle_is_replaced_by_the_other_one(
    workers: FaultWorkers, redis_client: redis.Redis, tmp_path: Path
) -> None:
    workers.streams = True
    mark = tmp_path / "judged"
    other = workers.processes["health"]
    job_id = workers.submit()
    workers.worker("first", plan=LONG)
    workers.wait_steps(job_id, 6, seconds=workers.timers.patience)
    workers.worker("second", plan=LONG)
    workers.start("health-2", "tests.faults.dying", DIES_AT="in_reap", DIES_MARK=str(mark))
    second_pid = str(workers.processes["health-2"].pid)
    workers.wait_for(lambda: redis_client.hget(HEALTH, "pid") == second_pid, "the second reaper", 60)
    # As the other reaper is suspended, the reaper that will be killed does the next maintenance pass.
    other.send_signal(signal.SIGSTOP)
    workers.kill("first")
    workers.wait_for(mark.exists, "a judgement", workers.timers.patience, job_id)
    other.send_signal(signal.SIGCONT)
    redis_client.delete(HEALTH)
    workers.wait_for(lambda: bool(redis_client.exists(HEALTH)), "a maintenance pass of the first reaper", 30)
    assert "stale" not in workers.statuses(job_id), "two reapers judged at once"
    workers.kill("health-2")
    workers.wait_steps(job_id, 1, attempt=2, seconds=workers.timers.patience)
    names = workers.event_names(job_id)
    assert (names.count("stale"), names.count("restarted"), names.count("claimed")) == (1, 1, 2)
    assert workers.job(job_id).infra_restarts <= 1
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled", seconds=workers.timers.patience)


def test_fault_17_a_reaper_that_is_suspended_with_the_lock_delays_the_other_one_briefly(
    workers: FaultWorkers, tmp_path: Path
) -> None:
    mark = tmp_path / "locked"
    job_id = workers.submit()
    workers.worker("first", plan=LONG)
    workers.wait_steps(job_id, 6, seconds=workers.timers.patience)
    workers.start("health-2", "tests.faults.dying", DIES_AT="in_lock", DIES_MARK=str(mark))
    waiting = workers.submit()  # With a pending job, every maintenance pass has work to do.
    workers.wait_for(mark.exists, "the lock in a frozen hand", workers.timers.patience, job_id)
    workers.kill("first")
    workers.worker("second", plan=LONG)
    workers.wait_steps(job_id, 1, attempt=2, seconds=workers.timers.patience)
    names = workers.event_names(job_id)
    assert (names.count("stale"), names.count("restarted"), names.count("claimed")) == (1, 1, 2)
    workers.kill("health-2")
    for each in (job_id, waiting):
        workers.signal(each, "stop")
        workers.wait_status(each, "cancelled", seconds=workers.timers.patience)
