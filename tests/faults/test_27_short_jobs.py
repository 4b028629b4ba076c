"""Fault 27 of 31: one long job and ten short ones run on two workers."""

from __future__ import annotations

import random

from tests.faults.fault_fleet import FaultFleet
from tests.integration.worker.fleet import LONG
from tidal_client.vocabulary import JobType

SHORT = {"steps": 5, "step_seconds": 0.01}


def test_fault_27_short_jobs_never_wait_behind_a_long_one(fleet: FaultFleet, rng: random.Random) -> None:
    same_type = rng.random() < 0.5
    if same_type:
        fleet.concurrency(11)
        fleet.kill("health")
        fleet.start("health", "services.health")
    before = rng.randint(0, 10)
    short = [submit_short(fleet, same_type) for _ in range(before)]
    long = fleet.submit(plan=LONG)
    short += [submit_short(fleet, same_type) for _ in range(10 - before)]
    for name in ("first", "second"):
        fleet.worker(name)
    for job_id in short:
        fleet.wait_status(job_id, "completed", 30)
    fleet.wait_status(long, "running")
    assert fleet.job(long).attempt == 1
    fleet.signal(long, "stop")
    fleet.wait_status(long, "cancelled")


def submit_short(fleet: FaultFleet, same_type: bool) -> str:
    if same_type:
        return fleet.submit(plan=SHORT)
    payload = {"checkpoint": "20260101-000000-model/model.pth", "data": {"source": "builtin:stories"}, "evaluation": {}}
    return fleet.submit(plan=SHORT, type=JobType.EVALUATION, payload=payload)
