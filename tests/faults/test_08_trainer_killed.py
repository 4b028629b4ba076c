"""Faults 7 (first half) and 8: kill -9 of a trainer alone, and of its whole process group.

Fault 7 also concerns processes that the trainer has started. The second half of fault 7, a killed engine process of the
generator, is in `test_07_engine_killed`.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.faults.fault_fleet import FaultFleet
from tests.faults.moments import (
    finish,
    start_job,
    strike_while_stepping,
    trainers_of,
    wait_next_attempt,
    wait_trainers_ended,
)
from tests.faults.timers import Timers
from tests.integration.worker.fleet import LONG

NOTICED_SECONDS = 5.0


def restarted(fleet: FaultFleet, job_id: str) -> bool:
    return "restarted" in fleet.event_names(job_id)


@pytest.mark.core_fault
def test_fault_08_a_killed_trainer_is_detected_within_five_seconds_and_continued(
    fleet: FaultFleet, rng: random.Random
) -> None:
    job_id = start_job(fleet)
    strike_while_stepping(fleet, job_id, rng)
    [trainer] = fleet.trainers("first")
    trainer.kill()
    fleet.wait_for(lambda: restarted(fleet, job_id), "the restart", 2 * NOTICED_SECONDS, job_id)
    wait_next_attempt(fleet, job_id, 30)
    events = fleet.events(job_id)
    assert next(event for event in events if event.event == "restarted").details["code"] == "trainer_killed"
    assert "stale" not in fleet.statuses(job_id)
    finish(fleet, job_id)


def test_fault_07_a_killed_process_group_leaves_no_process_and_the_job_continues(
    fleet: FaultFleet, timers: Timers, rng: random.Random
) -> None:
    job_id = start_job(fleet, {**LONG, "helpers": 2})
    strike_while_stepping(fleet, job_id, rng)
    worker = fleet.processes["first"].pid
    group = trainers_of(worker)
    assert len(group) == 3, "the trainer and two processes it started"
    if rng.random() < 0.5:
        os.killpg(os.getpgid(group[0].pid), signal.SIGKILL)
    else:  # Only the group leader is killed. The processes that it has started must end as well.
        fleet.trainers("first")[0].kill()
    killed_at = time.monotonic()
    fleet.wait_for(lambda: not any(process.is_running() for process in group), "the end of the group", 10, job_id)
    fleet.wait_for(lambda: restarted(fleet, job_id), "the restart", 2 * NOTICED_SECONDS, job_id)
    assert time.monotonic() - killed_at < 2 * NOTICED_SECONDS + timers.lease_seconds
    wait_next_attempt(fleet, job_id, 30)
    finish(fleet, job_id)
    wait_trainers_ended(fleet, worker, 10)
