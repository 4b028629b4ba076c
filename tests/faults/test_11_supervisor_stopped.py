"""Fault 11 of 31: a supervisor is suspended with SIGSTOP for two minutes, and then continued with SIGCONT."""

from __future__ import annotations

import random
import signal
import time

from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import (
    finish,
    start_job,
    strike_while_stepping,
    takeover_seconds,
    wait_next_attempt,
    wait_refused,
)
from tests.faults.timers import Timers

STOPPED_SECONDS = 120.0


def test_fault_11_the_trainer_of_a_stopped_supervisor_is_suspended_and_the_old_attempt_is_refused(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    job_id = start_job(workers)
    strike_while_stepping(workers, job_id, rng)
    [trainer] = workers.trainers("first")
    workers.processes["first"].send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    wait_next_attempt(workers, job_id, 2 * takeover_seconds(timers))
    steps = workers.steps(job_id)
    assert trainer.is_running(), "the trainer suspended itself, and no other process killed it"
    assert max(s.time for s in steps if s.attempt == 1) < min(s.time for s in steps if s.attempt == 2)
    strike_while_stepping(workers, job_id, rng, attempt=2)
    remaining = STOPPED_SECONDS * timers.scale - (time.monotonic() - stopped_at)
    time.sleep(max(0.0, remaining))  # then the suspension has lasted STOPPED_SECONDS (scaled)
    workers.processes["first"].send_signal(signal.SIGCONT)
    wait_refused(workers, "first", 30)
    count = sum(step.attempt == 2 for step in workers.steps(job_id))
    workers.wait_steps(job_id, count + 5, attempt=2)
    assert workers.job(job_id).attempt == 2
    finish(workers, job_id)
