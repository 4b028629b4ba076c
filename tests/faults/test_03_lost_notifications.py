"""Faults 3 and 4 of 31: a notification is lost with a killed worker; Redis is emptied while fifty jobs wait."""

from __future__ import annotations

import random
import signal
import time

import redis

from common.redis.publisher import RedisPublisher
from tests.faults.fault_workers import FaultWorkers
from tests.faults.timers import STARTUP_SECONDS

WAITING = 50
"""Number of jobs that are waiting when Redis is emptied."""
RUN = 8
"""Number of the waiting jobs that run to their end.

The other waiting jobs are cancelled, because each run needs a process.
"""


def test_fault_03_a_notification_lost_with_its_worker_is_repeated(
    workers: FaultWorkers, rng: random.Random, redis_client: redis.Redis
) -> None:
    workers.worker("first")
    consumers = "the worker to wait for a message"
    workers.wait_for(lambda: any("brpop" in str(c["cmd"]) for c in redis_client.client_list()), consumers, 60)
    workers.processes["first"].send_signal(signal.SIGSTOP)
    # The delay is random on purpose: the worker's BRPOP is either waiting or has just timed out.
    time.sleep(rng.uniform(0.0, 1.0))
    publisher = RedisPublisher(workers.settings.redis_url)
    job_id = workers.submit()
    workers.wait_for(lambda: published(workers), "the notification to be published", workers.timers.patience)
    workers.kill("first")
    publisher.close()
    workers.worker("second")
    began = time.monotonic()
    workers.wait_status(job_id, "completed", seconds=workers.timers.patience)
    # The first maintenance pass after outbox_seconds sends a lost notification again.
    assert time.monotonic() - began < 2 * (
        workers.timers.outbox_seconds + workers.timers.reaper_seconds + STARTUP_SECONDS
    )
    assert workers.event_names(job_id).count("claimed") == 1


def published(workers: FaultWorkers) -> bool:
    """Return whether all rows of the outbox are published."""
    return rows(workers, "SELECT count(*) FROM outbox WHERE published_at IS NULL") == 0


def rows(workers: FaultWorkers, query: str) -> int:
    with workers.sessions() as session:
        return int(session.connection().exec_driver_sql(query).scalar_one())


def test_fault_04_no_job_is_lost_when_redis_is_emptied_with_fifty_waiting(
    workers: FaultWorkers, rng: random.Random, redis_client: redis.Redis
) -> None:
    workers.concurrency(2)
    jobs = [workers.submit({"steps": 5}) for _ in range(WAITING)]
    workers.wait_for(lambda: published(workers), "the notifications to be published", workers.timers.patience)
    redis_client.flushall()
    for name in ("first", "second"):
        workers.worker(name)
    completed = "SELECT count(*) FROM jobs WHERE status = 'completed'"
    again = rng.randint(1, RUN - 1)
    workers.wait_for(lambda: rows(workers, completed) >= again, f"{again} jobs", workers.timers.patience * 2)
    redis_client.flushall()
    workers.wait_for(lambda: rows(workers, completed) >= RUN, f"{RUN} jobs", workers.timers.patience * 2)
    for job_id in jobs:
        if workers.job(job_id).status == "pending":
            workers.cancel(job_id)
    workers.wait_all_terminal(workers.timers.patience * 2)
    ends = [workers.job(job_id).status for job_id in jobs]
    assert set(ends) <= {"completed", "cancelled"}
    assert ends.count("completed") >= RUN
    assert all(workers.event_names(job_id).count("claimed") <= 1 for job_id in jobs)
