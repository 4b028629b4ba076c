"""Faults 19 and 20 of 31: a worker gets SIGTERM; in fault 20, its job is cancelled as well."""

from __future__ import annotations

import random
import time

from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import (
    finish,
    start_job,
    strike_any_time,
    strike_while_stepping,
    wait_next_attempt,
    wait_trainers_ended,
)
from tests.faults.timers import Timers
from tests.integration.worker.workers import LONG

RESUMED_SECONDS = 30.0


def test_fault_19_a_drained_job_is_resumed_elsewhere_within_thirty_seconds(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    job_id = start_job(workers)
    strike_any_time(workers, job_id, rng)
    first = workers.processes["first"]
    first.terminate()
    wait_next_attempt(workers, job_id, 2 * RESUMED_SECONDS)
    assert first.wait(2 * timers.drain_seconds) == 0
    steps = workers.steps(job_id)
    last = max((step.step for step in steps if step.attempt == 1), default=0)
    assert next(step.step for step in steps if step.attempt == 2) == last + 1, "a drain costs no step"
    assert "stale" not in workers.statuses(job_id)
    assert workers.job(job_id).infra_restarts == 0
    finish(workers, job_id)


def test_fault_20_a_cancel_during_a_drain_takes_precedence(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    deaf = rng.random() < 0.5
    job_id = start_job(workers, {**LONG, "deaf": deaf})
    strike_while_stepping(workers, job_id, rng)
    first = workers.processes["first"]
    first.terminate()
    time.sleep(rng.uniform(0.0, 0.3))  # the delay is random on purpose
    workers.cancel(job_id)
    bound = timers.stop_grace_seconds + timers.reaper_seconds
    workers.wait_status(job_id, "cancelled", 2 * bound + 5)
    assert first.wait(2 * timers.drain_seconds) == 0
    for name in ("first", "second"):
        wait_trainers_ended(workers, workers.processes[name].pid, 5)
    assert workers.statuses(job_id).count("cancelled") == 1
