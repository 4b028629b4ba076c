"""Celery knows all settings that Tidal gives it. tests/integration/jobs/test_celery_delivery.py tests the delivery."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS
from pydantic import SecretStr

from common.redis.celery_settings import (
    HANDOVER_TASK,
    MAINTENANCE_TASK,
    NOTIFY_TASK,
    WORKER_FLAGS,
    celery_settings,
    make_app,
)


@pytest.fixture
def app() -> Celery:
    return make_app("test", SecretStr("redis://:pw@127.0.0.1:1/0"))


@pytest.mark.parametrize(
    ("task", "queue"), [(NOTIFY_TASK, "training"), (HANDOVER_TASK, "generate"), (MAINTENANCE_TASK, "health")]
)
def test_each_task_goes_to_its_queue(app: Celery, task: str, queue: str) -> None:
    assert app.amqp.router.route({}, task)["queue"].name == queue


def test_every_setting_is_one_that_celery_knows() -> None:
    unknown = set(celery_settings("redis://x")) - set(DEFAULTS)
    assert unknown == set()


def test_workers_send_task_events_and_heartbeats_without_gossip() -> None:
    assert {"--task-events", "--without-gossip", "--without-mingle"} <= set(WORKER_FLAGS)
    assert "--without-heartbeat" not in WORKER_FLAGS
