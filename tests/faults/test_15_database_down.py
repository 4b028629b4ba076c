"""Fault 15 of 31: PostgreSQL is killed and stays down for two lease times. Every job runs once and is never stale."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.db import upgrade
from services.local.servers import PostgresServer
from tests.faults.fault_workers import FaultWorkers
from tests.faults.own_servers import kill_9, postgres_of_its_own
from tests.faults.timers import Timers


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """Run a PostgreSQL with migrated tables for this test only."""
    with postgres_of_its_own(tmp_path / "postgres") as server:
        upgrade(server.url)
        yield server


@pytest.fixture
def database_url(server: PostgresServer) -> str:
    """Return the URL of this test's own server. All fixtures use it."""
    return server.url


@pytest.fixture
def timers(timers: Timers) -> Timers:
    """Return timers with which a supervisor, which retries every second, renews its lease before the reaper acts."""
    return replace(timers, reaper_contact_seconds=max(5.0, timers.reaper_contact_seconds))


def test_fault_15_the_database_down_for_two_leases_and_every_job_runs_once(
    workers: FaultWorkers, server: PostgresServer, rng: random.Random
) -> None:
    timers = workers.timers
    steps = int(2 * timers.lease_seconds / 0.05)
    running = workers.submit(plan={"steps": steps, "step_seconds": 0.05})
    waiting = workers.submit(plan={"steps": 3})
    workers.worker()
    workers.wait_steps(running, 3, seconds=timers.patience)
    time.sleep(rng.uniform(0.0, timers.lease_renew_seconds))  # The delay is random on purpose, between two renewals.
    experiment = workers.experiment(running)
    kill_9(server)
    time.sleep(2 * timers.lease_seconds)
    suspended = (experiment / "steps.jsonl").read_text().count("\n")
    server.start()
    workers.wait_status(running, "completed", seconds=2 * timers.patience + steps * 0.05)
    workers.wait_status(waiting, "completed", seconds=timers.patience)
    assert suspended < steps, "it trained on without a lease"
    for job_id in (running, waiting):
        assert workers.event_names(job_id).count("claimed") == 1
        assert not {"stale", "restarted"} & set(workers.event_names(job_id)), "judged before its owner could answer"
    assert [step.step for step in workers.steps(running)] == list(range(1, steps + 1))
