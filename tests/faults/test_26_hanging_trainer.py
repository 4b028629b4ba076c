"""Fault 26 of 31: the trainer hangs, while its worker continues to renew the lease and to send heartbeats."""

from __future__ import annotations

import random

import redis

from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import finish, heartbeat_of, start_job, wait_next_attempt
from tests.faults.timers import REAL, Timers
from tests.integration.worker.workers import LONG

WARM_UP = 20
"""Number of measured intervals between steps that the worker needs to compute its time limit for a step."""


def test_fault_26_a_hanging_trainer_is_killed_and_its_job_retried(
    workers: FaultWorkers, timers: Timers, rng: random.Random, redis_client: redis.Redis
) -> None:
    late = rng.randint(WARM_UP + 10, 60)
    if timers == REAL:  # hang late, because the time limit is half an hour until WARM_UP intervals are measured
        at, limit = late, workers.settings.no_progress_seconds
    else:
        at, limit = rng.choice([(rng.randint(2, WARM_UP - 2), 4.0), (late, 2.0)])
        workers.environment |= {"TIDAL_NO_PROGRESS_SECONDS": "2", "TIDAL_PHASE_SECONDS": "4"}
    job_id = start_job(workers, {**LONG, "ending": "hang", "at": at, "until_attempt": 1})
    workers.wait_steps(job_id, at)
    pid = workers.processes["first"].pid
    beats = {heartbeat_of(redis_client, pid).get("at")}

    def killed() -> bool:
        beats.add(heartbeat_of(redis_client, pid).get("at"))
        return "sigkill_sent" in workers.event_names(job_id)

    workers.wait_for(killed, "the end of patience", 2 * limit, job_id)
    wait_next_attempt(workers, job_id, 30)
    assert len(beats) > 1 or timers.heartbeat_seconds > limit, "the worker beat while the trainer hung"
    assert "stale" not in workers.statuses(job_id)
    restarted = next(event for event in workers.events(job_id) if event.event == "restarted")
    assert restarted.details["code"] == "no_progress"
    finish(workers, job_id)
