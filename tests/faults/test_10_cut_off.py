"""Faults 10 and 22 of 31: a worker cannot reach PostgreSQL for long; in fault 22, its job is cancelled meanwhile.

The worker reaches the database through a proxy. `cut` resets its connections and refuses new ones; `silence` discards
all data. Redis stays reachable, so the worker still sends heartbeats.
"""

from __future__ import annotations

import random
import time

import pytest
import redis

from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import (
    finish,
    heartbeat_of,
    start_job,
    strike_while_stepping,
    takeover_seconds,
    wait_next_attempt,
    wait_refused,
    wait_trainers_ended,
)
from tests.faults.proxy import TcpProxy
from tests.faults.timers import Timers

CUT_OFF_SECONDS = 300.0


def cut(proxy: TcpProxy, rng: random.Random) -> None:
    if rng.random() < 0.5:
        proxy.cut()
    else:
        proxy.silence()


def test_fault_10_a_worker_cut_off_for_long_suspends_its_trainer_and_its_old_writes_are_refused(
    workers: FaultWorkers, timers: Timers, rng: random.Random, redis_client: redis.Redis
) -> None:
    with TcpProxy.of_url(workers.environment["TIDAL_DATABASE_URL"]) as proxy:
        job_id = start_job(workers, TIDAL_DATABASE_URL=proxy.url)
        strike_while_stepping(workers, job_id, rng)
        worker = workers.processes["first"].pid
        cut(proxy, rng)
        cut_at = time.monotonic()
        workers.wait_for(
            lambda: heartbeat_of(redis_client, worker).get("suspended") == "true",
            "the suspension",
            2 * timers.trainer_pause_seconds,
            job_id,
        )
        wait_next_attempt(workers, job_id, 2 * takeover_seconds(timers) - (time.monotonic() - cut_at))
        strike_while_stepping(workers, job_id, rng, attempt=2)
        remaining = CUT_OFF_SECONDS * timers.scale - (time.monotonic() - cut_at)
        time.sleep(max(0.0, remaining))  # the worker is cut off for `CUT_OFF_SECONDS * scale` in total
        proxy.heal()
        wait_refused(workers, "first", 30)
        before = workers.steps(job_id)
        workers.wait_steps(job_id, sum(step.attempt == 2 for step in before) + 5, attempt=2)
        assert workers.job(job_id).attempt == 2
        finish(workers, job_id)
        # The worker whose writes were refused must be able to run other jobs.
        workers.processes["second"].terminate()
        workers.processes["second"].wait(20)
        after = workers.submit(plan={"steps": 3})
        workers.wait_status(after, "completed")


@pytest.mark.core_fault
def test_fault_22_a_cancelled_job_ends_although_its_worker_is_cut_off(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    with TcpProxy.of_url(workers.environment["TIDAL_DATABASE_URL"]) as proxy:
        job_id = start_job(workers, TIDAL_DATABASE_URL=proxy.url)
        strike_while_stepping(workers, job_id, rng)
        worker = workers.processes["first"].pid
        cut(proxy, rng)
        time.sleep(rng.uniform(0.0, timers.trainer_pause_seconds))  # the delay is random on purpose
        workers.cancel(job_id)
        healed_early = rng.random() < 0.3
        if healed_early:
            time.sleep(rng.uniform(0.0, timers.lease_renew_seconds))
            proxy.heal()
        bound = timers.after_lease
        workers.wait_status(job_id, "cancelled", 2 * bound + timers.stop_grace_seconds)
        proxy.heal()
        wait_trainers_ended(workers, worker, 30)
        assert workers.statuses(job_id)[-2:] in (["stopping", "cancelled"], ["stale", "cancelled"])
        assert workers.job(job_id).attempt == 1
