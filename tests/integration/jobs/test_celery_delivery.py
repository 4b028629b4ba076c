"""How Celery delivers a notification: acknowledged before the work, and never fetched ahead by a busy worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject
from pydantic import SecretStr

from common.redis.celery_settings import DOORBELL_TASK, make_app

QUEUE, UNACKNOWLEDGED = "training", "unacked"
"""Keys that Celery's transport uses in Redis."""


@pytest.fixture
def app(redis_url: str) -> Celery:
    return make_app("test", SecretStr(redis_url))


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_busy_worker_has_acknowledged_its_message_and_fetched_no_other(
    app: Celery, redis_client: redis.Redis
) -> None:
    started, finish = threading.Event(), threading.Event()
    done: list[str] = []

    @app.task(name=DOORBELL_TASK, shared=False)
    def work(name: str) -> None:
        started.set()
        assert finish.wait(30)
        done.append(name)

    with start_worker(app, concurrency=1, pool="threads", perform_ping_check=False, shutdown_timeout=30):
        for name in ("first", "second", "third"):
            app.send_task(DOORBELL_TASK, args=[name])
        try:
            assert started.wait(20)
            wait_until(lambda: redis_client.hlen(UNACKNOWLEDGED) == 0)
            assert redis_client.llen(QUEUE) == 2, "other workers can take what this one has no slot for"
        finally:
            finish.set()
        wait_until(lambda: len(done) == 3)
    assert done == ["first", "second", "third"]
    assert redis_client.hlen(UNACKNOWLEDGED) == 0


def test_a_task_that_fails_is_not_delivered_again(app: Celery, redis_client: redis.Redis) -> None:
    calls: list[str] = []

    @app.task(name=DOORBELL_TASK, shared=False)
    def work(name: str) -> None:
        calls.append(name)
        if name == "rejected":
            raise Reject("no")
        if name == "failed":
            raise RuntimeError("no")

    with start_worker(app, concurrency=1, pool="threads", perform_ping_check=False, shutdown_timeout=30):
        for name in ("failed", "rejected", "last"):
            app.send_task(DOORBELL_TASK, args=[name])
        wait_until(lambda: "last" in calls)
    assert calls == ["failed", "rejected", "last"]
    assert redis_client.llen(QUEUE) == redis_client.hlen(UNACKNOWLEDGED) == 0
