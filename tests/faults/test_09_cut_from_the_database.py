"""Fault 9 of 31: a worker cannot reach PostgreSQL for half a lease; the attempt continues, and nothing is lost."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from tests.faults.fault_workers import FaultWorkers
from tests.faults.proxy import TcpProxy
from tests.faults.timers import Timers


@pytest.fixture
def timers(timers: Timers) -> Timers:
    """Return timers with a lease of at least 6 s.

    With this lease, even a busy machine has enough time for a renewal after an outage of half a lease.
    """
    return replace(
        timers,
        lease_seconds=max(6.0, timers.lease_seconds),
        trainer_pause_seconds=max(4.0, timers.trainer_pause_seconds),
    )


@pytest.mark.parametrize("how", ["reset", "silent"])
def test_fault_09_a_worker_cut_off_from_the_database_for_half_a_lease_continues(
    workers: FaultWorkers, rng: random.Random, how: str
) -> None:
    timers = workers.timers
    away = timers.lease_seconds / 2
    steps = int(1.5 * timers.lease_seconds / 0.05)
    job_id = workers.submit(plan={"steps": steps, "step_seconds": 0.05, "every": 5})
    with TcpProxy.of_url(workers.settings.database_url.get_secret_value()) as proxy:
        workers.worker(TIDAL_DATABASE_URL=proxy.url)
        workers.wait_steps(job_id, 3, seconds=timers.patience)
        # The delay is random on purpose, between two renewals.
        time.sleep(rng.uniform(0.0, timers.lease_renew_seconds))
        before = len(workers.steps(job_id))
        if how == "reset":
            proxy.cut()
        else:
            proxy.silence()
        time.sleep(away)
        during = len(workers.steps(job_id))
        proxy.heal()
        workers.wait_status(job_id, "completed", seconds=timers.patience + steps * 0.05)
        assert during > before, "the trainer stood still"
        assert not {"stale", "restarted", "healed"} & set(workers.event_names(job_id))
        assert workers.event_names(job_id).count("claimed") == 1
        assert [step.step for step in workers.steps(job_id)] == list(range(1, steps + 1))
        saved = [event.details["step"] for event in workers.events(job_id) if event.event == "checkpoint"]
        assert saved == list(range(5, steps + 1, 5)), "a checkpoint of the time of the cut was not registered"
        # The worker must shut down before the proxy is closed.
        workers.processes["worker"].terminate()
        workers.processes["worker"].wait(20)
