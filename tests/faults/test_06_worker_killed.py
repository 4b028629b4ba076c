"""Fault 6 of 31: kill -9 of a worker's main process at a random moment of an attempt."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.fault_fleet import FaultFleet
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
    fleet: FaultFleet, timers: Timers, rng: random.Random
) -> None:
    job_id = start_job(fleet)
    strike_any_time(fleet, job_id, rng)
    worker = fleet.processes["first"].pid
    fleet.kill("first")
    killed_at = time.monotonic()
    wait_trainers_ended(fleet, worker, 2 * TRAINER_DIES_SECONDS)
    wait_next_attempt(fleet, job_id, 2 * takeover_seconds(timers) - (time.monotonic() - killed_at))
    assert fleet.statuses(job_id).count("stale") == 1
    assert fleet.job(job_id).attempt == 2
    finish(fleet, job_id)
