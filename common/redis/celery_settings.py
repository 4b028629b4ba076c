"""The Celery configuration that every process shares: workers, and whoever publishes a doorbell.

A message is a doorbell, the row in Postgres is the queue (docs/decisions/0019). So messages are acknowledged before
the work, nothing is prefetched, there are no results, and nothing relies on a message being delivered exactly once.
Leaves out: the tasks themselves; each service registers its own on the app that `make_app` gives it.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from pydantic import SecretStr

from common.redis.keys import GENERATE_QUEUE, HEALTH_QUEUE, TRAINING_QUEUE

DOORBELL_TASK: Final = "tidal.training.doorbell"
HANDOVER_TASK: Final = "tidal.generate.handover"
SWEEP_TASK: Final = "tidal.health.sweep"

WORKER_FLAGS: Final = ("--task-events", "--without-gossip", "--without-mingle", "--pool", "threads")
"""Event heartbeats and remote control stay on: without them Flower shows workers offline after 150 s."""


def celery_settings(redis_url: str | SecretStr) -> dict[str, Any]:
    """Settings for `Celery.conf.update`; durations in seconds."""
    url = redis_url.get_secret_value() if isinstance(redis_url, SecretStr) else redis_url
    return {
        "broker_url": url,
        "result_backend": None,
        "task_ignore_result": True,
        # Acknowledged before the work: with late acknowledgement a reset of the connection runs a task twice.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A doorbell that waits in Redis can be heard by another worker, a prefetched one cannot.
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": 3600,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        "task_default_queue": TRAINING_QUEUE,
        "task_routes": {
            DOORBELL_TASK: {"queue": TRAINING_QUEUE},
            HANDOVER_TASK: {"queue": GENERATE_QUEUE},
            SWEEP_TASK: {"queue": HEALTH_QUEUE},
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def make_app(name: str, redis_url: str | SecretStr) -> Celery:
    """A Celery app with these settings and no tasks; enough to publish with `send_task`."""
    app = Celery(name, set_as_current=False)
    app.conf.update(celery_settings(redis_url))
    return app


def make_producer(name: str, redis_url: str | SecretStr, timeout: float = 5.0) -> Celery:
    """An app that only publishes, and fails when Redis takes longer than `timeout` seconds to connect or answer."""
    app = make_app(name, redis_url)
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "max_retries": 0,
    }
    return app


def worker_command(app: str, queue: str, arguments: Sequence[str] = (), *, sweeps: bool = False) -> list[str]:
    """Command line of a worker with one slot for `queue`; `app` is the module that holds its Celery app.

    With `sweeps` the worker also takes the task `tidal.health.sweep`, which needs access to the database.
    """
    return [
        sys.executable,
        # Root is warned of messages that run code when they are read; only JSON is read here.
        "-W",
        "ignore:You're running the worker with superuser privileges",
        "-m",
        "celery",
        "--quiet",
        "--app",
        app,
        "worker",
        *WORKER_FLAGS,
        "--concurrency",
        "1",
        "--queues",
        f"{queue},{HEALTH_QUEUE}" if sweeps else queue,
        "--hostname",
        f"{queue}-{secrets.token_hex(3)}@%h",
        *arguments,
    ]
