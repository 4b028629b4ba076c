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
from tests.faults.fault_fleet import FaultFleet
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


def assert_ran_once(fleet: FaultFleet, job_id: str, steps: int) -> None:
    """Assert that the job was claimed once, executed every step once, completed, and was never stale."""
    assert fleet.job(job_id).status == "completed"
    assert fleet.event_names(job_id).count("claimed") == 1
    assert "stale" not in fleet.statuses(job_id)
    assert [step.step for step in fleet.steps(job_id)] == list(range(1, steps + 1))


def patience(fleet: FaultFleet) -> float:
    """Return the time limit in seconds for the claim of a job.

    It includes the time until a worker has reconnected to Redis and a sweep has repeated the notification.
    """
    timers = fleet.timers
    return timers.patience + RECONNECT_SECONDS + 2 * timers.outbox_seconds


def test_fault_12_all_connections_to_redis_closed_twenty_times_and_the_jobs_run_once(
    fleet: FaultFleet, redis_url: str, rng: random.Random
) -> None:
    fleet.worker(plan={"steps": 60, "step_seconds": 0.05})
    long = fleet.submit()
    fleet.wait_steps(long, 1, seconds=fleet.timers.patience)
    short = []
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        for number in range(20):
            if number % 5 == 0:
                short.append(fleet.submit(plan={"steps": 5}))
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)
            time.sleep(rng.uniform(0.02, 0.4))  # the delay is random on purpose
    for job_id in (long, *short):
        fleet.wait_status(job_id, "completed", seconds=patience(fleet))
    assert_ran_once(fleet, long, 60)
    for job_id in short:
        assert_ran_once(fleet, job_id, 5)


def test_fault_13_redis_killed_seven_times_and_every_job_runs_once(
    fleet: FaultFleet, server: ValkeyServer, rng: random.Random
) -> None:
    fleet.worker(plan={"steps": 5})
    jobs = []
    for _ in range(7):
        before = rng.random() < 0.5
        if before:
            jobs.append(fleet.submit())
        time.sleep(rng.uniform(0.0, 0.5))  # the delay is random on purpose
        kill_9(server)
        if not before:
            jobs.append(fleet.submit())
        time.sleep(rng.uniform(0.0, 0.3))
        server.start()
    for job_id in jobs:
        fleet.wait_status(job_id, "completed", seconds=patience(fleet))
    for job_id in jobs:
        assert_ran_once(fleet, job_id, 5)


def test_fault_14_redis_unavailable_for_leases_affects_no_job_and_no_submission(
    fleet: FaultFleet, server: ValkeyServer, rng: random.Random
) -> None:
    with running_api(fleet) as client:
        away = 3 * fleet.timers.lease_seconds if fleet.timers.scale < 1 else 300.0
        fleet.worker(plan={"steps": 5})
        steps = int((away + 6) / 0.1)  # With this number of steps, the job lasts longer than the outage.
        long = fleet.submit(plan={"steps": steps, "step_seconds": 0.1, "every": 20})
        fleet.wait_steps(long, 1, seconds=fleet.timers.patience)
        kill_9(server)
        began, before = time.monotonic(), len(fleet.steps(long))
        waiting = []
        while time.monotonic() - began < away:
            if len(waiting) < 3:
                waiting.append(submit_over_http(fleet, client))
            time.sleep(rng.uniform(0.1, 0.3) * away / 3)
            assert fleet.job(long).status == "running"
        executed = len(fleet.steps(long))
        assert client.get("/readyz").status_code == 503
        assert client.get(f"/api/jobs/{long}").json()["status"] == "running"
        server.start()
        for job_id in (long, *waiting):
            fleet.wait_status(job_id, "completed", seconds=patience(fleet) + steps * 0.1)
        assert executed > before + 5, "the job stood still while Redis was away"
        assert_ran_once(fleet, long, steps)
        for job_id in waiting:
            assert_ran_once(fleet, job_id, 5)
