"""Fault 18 of 31: the wall clocks of the workers and of the health process are ten minutes fast or slow."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import redis

from common.redis.keys import HEALTH
from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import finish, heartbeat_of, strike_while_stepping, takeover_seconds, wait_next_attempt
from tests.faults.timers import Timers
from tests.integration.worker.workers import LONG, ROOT

SHIFT_SECONDS = 600.0
SHIFTED_CLOCK = Path(__file__).with_name("shifted_clock")


def shifted(seconds: float) -> dict[str, str]:
    """Return environment variables that shift the wall clock of a process."""
    return {"PYTHONPATH": f"{SHIFTED_CLOCK}:{ROOT}", "TIDAL_TEST_CLOCK_SHIFT": str(seconds)}


def test_fault_18_wrong_clocks_neither_end_nor_extend_a_lease(
    workers: FaultWorkers, timers: Timers, rng: random.Random, redis_client: redis.Redis
) -> None:
    signs = rng.choice([(1, -1, 1), (-1, 1, -1), (1, 1, -1), (-1, -1, 1)])
    first, second, health = (sign * SHIFT_SECONDS for sign in signs)
    workers.kill("health")
    workers.start("health", "services.health", **shifted(health))
    job_id = workers.submit(plan=LONG)
    workers.worker("first", None, **shifted(first))
    workers.wait_status(job_id, "running")
    running_since = time.monotonic()
    workers.worker("second", None, **shifted(second))
    pid = workers.processes["first"].pid
    workers.wait_for(lambda: "at" in heartbeat_of(redis_client, pid), "a heartbeat")
    assert float(heartbeat_of(redis_client, pid)["at"]) == pytest.approx(time.time() + first, abs=60), (
        "the clock is really wrong"
    )
    # The test waits for longer than a lease with its quarantine. By then, a process that compared wall clocks would
    # have acted.
    workers.wait_for(lambda: time.monotonic() - running_since > 1.5 * timers.after_lease, "some time", 200)
    assert workers.statuses(job_id) == ["pending", "provisioning", "starting", "running"]
    assert redis_client.exists(HEALTH), "the health process shows itself"
    strike_while_stepping(workers, job_id, rng)
    workers.kill("first")
    killed_at = time.monotonic()
    wait_next_attempt(workers, job_id, 2 * takeover_seconds(timers))
    assert time.monotonic() - killed_at > timers.lease_seconds - 2 * timers.lease_renew_seconds, (
        "the lease was waited for"
    )
    finish(workers, job_id)
