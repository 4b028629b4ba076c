"""Fault 6 of 31: kill -9 of a worker's main process at a random time during an attempt."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import (
    finish,
    start_job,
    strike_any_time,
    takeover_seconds,
    wait_next_attempt,
    wait_trainers_ended,
)
from tests.faults.timers import Timers

TRAINER_DIES_SECONDS = 2.0


@pytest.mark.core_fault
def test_fault_06_the_trainer_dies_with_its_worker_and_another_worker_continues(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    job_id = start_job(workers)
    strike_any_time(workers, job_id, rng)
    worker = workers.processes["first"].pid
    workers.kill("first")
    killed_at = time.monotonic()
    wait_trainers_ended(workers, worker, 2 * TRAINER_DIES_SECONDS)
    wait_next_attempt(workers, job_id, 2 * takeover_seconds(timers) - (time.monotonic() - killed_at))
    assert workers.statuses(job_id).count("stale") == 1
    assert workers.job(job_id).attempt == 2
    finish(workers, job_id)
