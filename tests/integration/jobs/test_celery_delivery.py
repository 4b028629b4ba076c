"""How Celery delivers a notification: it is acknowledged before the work starts, and a busy worker prefetches none."""

from __future__ import annotations

import queue
import threading
import time

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject
from pydantic import SecretStr

from common.redis.celery_settings import NOTIFY_TASK, make_app

QUEUE, UNACKNOWLEDGED = "training", "unacked"
"""The Redis keys of Celery's transport for waiting and for unacknowledged messages."""


@pytest.fixture
def app(redis_url: str) -> Celery:
    return make_app("test", SecretStr(redis_url))


def wait_until_acknowledged(client: redis.Redis) -> None:
    """Wait until Redis has the acknowledgement, which Celery's event loop sends with a delay."""
    until = time.monotonic() + 20
    while client.hlen(UNACKNOWLEDGED):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_busy_worker_has_acknowledged_its_message_and_fetched_no_other(
    app: Celery, redis_client: redis.Redis
) -> None:
    started, finish = threading.Event(), threading.Event()
    done: queue.Queue[str] = queue.Queue()

    @app.task(name=NOTIFY_TASK, shared=False)
    def work(name: str) -> None:
        started.set()
        assert finish.wait(30)
        done.put(name)

    with start_worker(app, concurrency=1, pool="threads", perform_ping_check=False, shutdown_timeout=30):
        for name in ("first", "second", "third"):
            app.send_task(NOTIFY_TASK, args=[name])
        try:
            assert started.wait(20)
            wait_until_acknowledged(redis_client)
            assert redis_client.llen(QUEUE) == 2, "other workers can take what this one has no slot for"
        finally:
            finish.set()
        assert [done.get(timeout=20) for _ in range(3)] == ["first", "second", "third"]
        wait_until_acknowledged(redis_client)


def test_a_task_that_fails_is_not_delivered_again(app: Celery, redis_client: redis.Redis) -> None:
    calls: queue.Queue[str] = queue.Queue()

    @app.task(name=NOTIFY_TASK, shared=False)
    def work(name: str) -> None:
        calls.put(name)
        if name == "rejected":
            raise Reject("no")
        if name == "failed":
            raise RuntimeError("no")

    with start_worker(app, concurrency=1, pool="threads", perform_ping_check=False, shutdown_timeout=30):
        for name in ("failed", "rejected", "last"):
            app.send_task(NOTIFY_TASK, args=[name])
        assert [calls.get(timeout=20) for _ in range(3)] == ["failed", "rejected", "last"]
        wait_until_acknowledged(redis_client)
    assert calls.empty()
    assert redis_client.llen(QUEUE) == 0
