"""Faults 12, 13, 14 of 31: Redis closes all connections 20 times, is killed 7 times, is unavailable for 5 minutes.

Redis only transports notifications and data for displays. Therefore every job must run exactly once, whatever happens
to Redis.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.local.servers import ValkeyServer
from tests.faults.fault_workers import FaultWorkers
from tests.faults.own_servers import kill_9, running_api, submit_over_http, valkey_of_its_own

RECONNECT_SECONDS = 30.0
"""The longest delay in seconds between two attempts of a Celery worker to connect to Redis."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Run a Valkey with an append-only file for this test only."""
    with valkey_of_its_own(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def redis_url(server: ValkeyServer) -> str:
    """Return the URL of this test's own server. All fixtures use it."""
    return server.url


def assert_ran_once(workers: FaultWorkers, job_id: str, steps: int) -> None:
    """Assert that the job was claimed once, executed every step once, completed, and was never stale."""
    assert workers.job(job_id).status == "completed"
    assert workers.event_names(job_id).count("claimed") == 1
    assert "stale" not in workers.statuses(job_id)
    assert [step.step for step in workers.steps(job_id)] == list(range(1, steps + 1))


def patience(workers: FaultWorkers) -> float:
    """Return the time limit in seconds for the claim of a job.

    It includes the time until a worker has reconnected to Redis and a maintenance pass has repeated the notification.
    """
    timers = workers.timers
    return timers.patience + RECONNECT_SECONDS + 2 * timers.outbox_seconds


def test_fault_12_all_connections_to_redis_closed_twenty_times_and_the_jobs_run_once(
    workers: FaultWorkers, redis_url: str, rng: random.Random
) -> None:
    workers.worker(plan={"steps": 60, "step_seconds": 0.05})
    long = workers.submit()
    workers.wait_steps(long, 1, seconds=workers.timers.patience)
    short = []
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        for number in range(20):
            if number % 5 == 0:
                short.append(workers.submit(plan={"steps": 5}))
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)
            time.sleep(rng.uniform(0.02, 0.4))  # the delay is random on purpose
    for job_id in (long, *short):
        workers.wait_status(job_id, "completed", seconds=patience(workers))
    assert_ran_once(workers, long, 60)
    for job_id in short:
        assert_ran_once(workers, job_id, 5)


def test_fault_13_redis_killed_seven_times_and_every_job_runs_once(
    workers: FaultWorkers, server: ValkeyServer, rng: random.Random
) -> None:
    workers.worker(plan={"steps": 5})
    jobs = []
    for _ in range(7):
        before = rng.random() < 0.5
        if before:
            jobs.append(workers.submit())
        time.sleep(rng.uniform(0.0, 0.5))  # the delay is random on purpose
        kill_9(server)
        if not before:
            jobs.append(workers.submit())
        time.sleep(rng.uniform(0.0, 0.3))
        server.start()
    for job_id in jobs:
        workers.wait_status(job_id, "completed", seconds=patience(workers))
    for job_id in jobs:
        assert_ran_once(workers, job_id, 5)


def test_fault_14_redis_unavailable_for_leases_affects_no_job_and_no_submission(
    workers: FaultWorkers, server: ValkeyServer, rng: random.Random
) -> None:
    with running_api(workers) as client:
        away = 3 * workers.timers.lease_seconds if workers.timers.scale < 1 else 300.0
        workers.worker(plan={"steps": 5})
        steps = int((away + 6) / 0.1)  # With this number of steps, the job lasts longer than the outage.
        long = workers.submit(plan={"steps": steps, "step_seconds": 0.1, "every": 20})
        workers.wait_steps(long, 1, seconds=workers.timers.patience)
        kill_9(server)
        began, before = time.monotonic(), len(workers.steps(long))
        waiting = []
        while time.monotonic() - began < away:
            if len(waiting) < 3:
                waiting.append(submit_over_http(workers, client))
            time.sleep(rng.uniform(0.1, 0.3) * away / 3)
            assert workers.job(long).status == "running"
        executed = len(workers.steps(long))
        assert client.get("/readyz").status_code == 503
        assert client.get(f"/api/jobs/{long}").json()["status"] == "running"
        server.start()
        for job_id in (long, *waiting):
            workers.wait_status(job_id, "completed", seconds=patience(workers) + steps * 0.1)
        assert executed > before + 5, "the job stood still while Redis was away"
        assert_ran_once(workers, long, steps)
        for job_id in waiting:
            assert_ran_once(workers, job_id, 5)
