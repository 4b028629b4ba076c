"""Faults 3 and 4 of 31: a worker is killed and its notification is lost; Redis is emptied while fifty jobs wait."""

from __future__ import annotations

import random
import signal
import time

import redis

from common.redis.publisher import RedisPublisher
from tests.faults.fault_fleet import FaultFleet
from tests.faults.timers import STARTUP_SECONDS

WAITING = 50
"""Number of jobs that are waiting when Redis is emptied."""
RUN = 8
"""Number of the waiting jobs that run to their end.

The other waiting jobs are cancelled, because each run needs a process.
"""


def test_fault_03_a_notification_lost_with_its_worker_is_repeated(
    fleet: FaultFleet, rng: random.Random, redis_client: redis.Redis
) -> None:
    fleet.worker("first")
    consumers = "the worker to wait for a message"
    fleet.wait_for(lambda: any("brpop" in str(c["cmd"]) for c in redis_client.client_list()), consumers, 60)
    fleet.processes["first"].send_signal(signal.SIGSTOP)
    # The delay is random on purpose: the worker's BRPOP is either waiting or has just timed out.
    time.sleep(rng.uniform(0.0, 1.0))
    publisher = RedisPublisher(fleet.settings.redis_url)
    job_id = fleet.submit()
    fleet.wait_for(lambda: published(fleet), "the notification to be published", fleet.timers.patience)
    fleet.kill("first")
    publisher.close()
    fleet.worker("second")
    began = time.monotonic()
    fleet.wait_status(job_id, "completed", seconds=fleet.timers.patience)
    # The reaper's first round after outbox_seconds sends a lost notification again.
    assert time.monotonic() - began < 2 * (fleet.timers.outbox_seconds + fleet.timers.reaper_seconds + STARTUP_SECONDS)
    assert fleet.event_names(job_id).count("claimed") == 1


def published(fleet: FaultFleet) -> bool:
    """Return whether all rows of the outbox are published."""
    return rows(fleet, "SELECT count(*) FROM outbox WHERE published_at IS NULL") == 0


def rows(fleet: FaultFleet, query: str) -> int:
    with fleet.sessions() as session:
        return int(session.connection().exec_driver_sql(query).scalar_one())


def test_fault_04_no_job_is_lost_when_redis_is_emptied_with_fifty_waiting(
    fleet: FaultFleet, rng: random.Random, redis_client: redis.Redis
) -> None:
    fleet.concurrency(2)
    jobs = [fleet.submit({"steps": 5}) for _ in range(WAITING)]
    fleet.wait_for(lambda: published(fleet), "the notifications to be published", fleet.timers.patience)
    redis_client.flushall()
    for name in ("first", "second"):
        fleet.worker(name)
    completed = "SELECT count(*) FROM jobs WHERE status = 'completed'"
    again = rng.randint(1, RUN - 1)
    fleet.wait_for(lambda: rows(fleet, completed) >= again, f"{again} jobs", fleet.timers.patience * 2)
    redis_client.flushall()
    fleet.wait_for(lambda: rows(fleet, completed) >= RUN, f"{RUN} jobs", fleet.timers.patience * 2)
    for job_id in jobs:
        if fleet.job(job_id).status == "pending":
            fleet.cancel(job_id)
    fleet.wait_all_terminal(fleet.timers.patience * 2)
    ends = [fleet.job(job_id).status for job_id in jobs]
    assert set(ends) <= {"completed", "cancelled"}
    assert ends.count("completed") >= RUN
    assert all(fleet.event_names(job_id).count("claimed") <= 1 for job_id in jobs)
