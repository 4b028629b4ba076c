"""Fault 27 of 31: one long job and ten short ones run on two workers."""

from __future__ import annotations

import random

from tests.faults.fault_workers import FaultWorkers
from tests.integration.worker.workers import LONG
from tidal_client.vocabulary import JobType

SHORT = {"steps": 5, "step_seconds": 0.01}


def test_fault_27_short_jobs_never_wait_behind_a_long_one(workers: FaultWorkers, rng: random.Random) -> None:
    same_type = rng.random() < 0.5
    if same_type:
        workers.concurrency(11)
        workers.kill("health")
        workers.start("health", "services.health")
    before = rng.randint(0, 10)
    short = [submit_short(workers, same_type) for _ in range(before)]
    long = workers.submit(plan=LONG)
    short += [submit_short(workers, same_type) for _ in range(10 - before)]
    for name in ("first", "second"):
        workers.worker(name)
    for job_id in short:
        workers.wait_status(job_id, "completed", 30)
    workers.wait_status(long, "running")
    assert workers.job(long).attempt == 1
    workers.signal(long, "stop")
    workers.wait_status(long, "cancelled")


def submit_short(workers: FaultWorkers, same_type: bool) -> str:
    if same_type:
        return workers.submit(plan=SHORT)
    payload = {"checkpoint": "20260101-000000-model/model.pth", "data": {"source": "builtin:stories"}, "evaluation": {}}
    return workers.submit(plan=SHORT, type=JobType.EVALUATION, payload=payload)
