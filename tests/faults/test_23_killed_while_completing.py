"""Fault 23 of 31: a job is asked to complete; while it is completing, its worker or its trainer is killed."""

from __future__ import annotations

import json
import random
import time

from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import start_job, strike_while_stepping, takeover_seconds
from tests.faults.timers import Timers
from tests.integration.worker.workers import LONG


def test_fault_23_a_job_killed_while_completing_is_completed_by_the_next_attempt(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    job_id = start_job(workers, {**LONG, "completing_seconds": 1.5})
    strike_while_stepping(workers, job_id, rng)
    workers.signal(job_id, "complete")
    workers.wait_status(job_id, "completing")
    time.sleep(rng.uniform(0.0, 0.6))  # the delay is random on purpose
    if rng.random() < 0.5:
        workers.kill("first")
    else:
        [trainer] = workers.trainers("first")
        trainer.kill()
    job = workers.wait_status(job_id, "completed", 2 * takeover_seconds(timers))
    assert (job.attempt, job.desired_state) == (2, "complete")
    assert json.loads((workers.experiment(job_id) / "model.pth").read_text())["attempt"] == 2
    [model] = [artifact for artifact in workers.artifacts(job_id) if artifact.name == "model.pth"]
    assert model.attempt == 2
