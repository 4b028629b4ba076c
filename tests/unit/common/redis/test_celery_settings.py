"""The Celery settings that keep a doorbell a doorbell."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS
from kombu.transport.redis import Transport
from pydantic import SecretStr

from common.redis.celery_settings import (
    DOORBELL_TASK,
    HANDOVER_TASK,
    SWEEP_TASK,
    WORKER_FLAGS,
    celery_settings,
    make_app,
)


@pytest.fixture
def app() -> Celery:
    return make_app("test", SecretStr("redis://:pw@127.0.0.1:1/0"))


def test_messages_are_acknowledged_before_the_work_and_never_prefetched(app: Celery) -> None:
    assert app.conf.task_acks_late is False
    assert app.conf.task_reject_on_worker_lost is False
    assert app.conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert app.conf.worker_disable_prefetch is True
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.task_ignore_result is True
    assert app.conf.result_backend is None


def test_a_lost_broker_is_waited_for_without_end(app: Celery) -> None:
    assert app.conf.broker_connection_retry_on_startup is True
    assert app.conf.broker_connection_max_retries is None
    options = app.conf.broker_transport_options
    assert options["visibility_timeout"] == 3600
    assert options["socket_timeout"] == 30
    assert options["socket_connect_timeout"] == 5
    assert options["health_check_interval"] == 25
    assert options["socket_keepalive"] is True
    assert app.connection_for_read().transport_cls in ("redis", Transport)


@pytest.mark.parametrize(
    ("task", "queue"), [(DOORBELL_TASK, "training"), (HANDOVER_TASK, "generate"), (SWEEP_TASK, "health")]
)
def test_each_task_goes_to_its_queue(app: Celery, task: str, queue: str) -> None:
    assert app.amqp.router.route({}, task)["queue"].name == queue


def test_every_setting_is_one_that_celery_knows() -> None:
    unknown = set(celery_settings("redis://x")) - set(DEFAULTS)
    assert unknown == set()


def test_workers_do_not_gossip_and_send_events() -> None:
    assert {"--task-events", "--without-gossip", "--without-mingle"} <= set(WORKER_FLAGS)
    assert "--without-heartbeat" not in WORKER_FLAGS
