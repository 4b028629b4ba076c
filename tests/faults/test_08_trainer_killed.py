"""Faults 7 (first part) and 8 of 31: kill -9 of a trainer alone, and of its whole process group.

Fault 7 also concerns processes that the trainer has started. The second part of fault 7, a killed engine process of the
generator, is in `test_07_engine_killed`.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import (
    finish,
    start_job,
    strike_while_stepping,
    trainers_of,
    wait_next_attempt,
    wait_trainers_ended,
)
from tests.faults.timers import Timers
from tests.integration.worker.workers import LONG

NOTICED_SECONDS = 5.0


def restarted(workers: FaultWorkers, job_id: str) -> bool:
    return "restarted" in workers.event_names(job_id)


@pytest.mark.core_fault
def test_fault_08_a_killed_trainer_is_detected_within_five_seconds_and_continued(
    workers: FaultWorkers, rng: random.Random
) -> None:
    job_id = start_job(workers)
    strike_while_stepping(workers, job_id, rng)
    [trainer] = workers.trainers("first")
    trainer.kill()
    workers.wait_for(lambda: restarted(workers, job_id), "the restart", 2 * NOTICED_SECONDS, job_id)
    wait_next_attempt(workers, job_id, 30)
    events = workers.events(job_id)
    assert next(event for event in events if event.event == "restarted").details["code"] == "trainer_killed"
    assert "stale" not in workers.statuses(job_id)
    finish(workers, job_id)


def test_fault_07_a_killed_process_group_leaves_no_process_and_the_job_continues(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    job_id = start_job(workers, {**LONG, "helpers": 2})
    strike_while_stepping(workers, job_id, rng)
    worker = workers.processes["first"].pid
    group = trainers_of(worker)
    assert len(group) == 3, "the trainer and two processes it started"
    if rng.random() < 0.5:
        os.killpg(os.getpgid(group[0].pid), signal.SIGKILL)
    else:  # Only the group leader is killed. The processes that it has started must end as well.
        workers.trainers("first")[0].kill()
    killed_at = time.monotonic()
    workers.wait_for(lambda: not any(process.is_running() for process in group), "the end of the group", 10, job_id)
    workers.wait_for(lambda: restarted(workers, job_id), "the restart", 2 * NOTICED_SECONDS, job_id)
    assert time.monotonic() - killed_at < 2 * NOTICED_SECONDS + timers.lease_seconds
    wait_next_attempt(workers, job_id, 30)
    finish(workers, job_id)
    wait_trainers_ended(workers, worker, 10)
