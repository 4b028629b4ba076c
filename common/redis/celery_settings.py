"""The Celery configuration of all processes: the workers, and the processes that only publish messages.

A message only notifies a worker; the queue is the table in PostgreSQL (docs/decisions/0019). Therefore messages are
acknowledged before the work, nothing is prefetched, there are no results, and no code relies on a message being
delivered exactly once. Each service registers its own tasks on the app that `make_app` returns.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from pydantic import SecretStr

from common.redis.keys import GENERATE_QUEUE, HEALTH_QUEUE, TRAINING_QUEUE

NOTIFY_TASK: Final = "tidal.training.doorbell"
HANDOVER_TASK: Final = "tidal.generate.handover"
MAINTENANCE_TASK: Final = "tidal.health.sweep"

WORKER_FLAGS: Final = ("--task-events", "--without-gossip", "--without-mingle", "--pool", "threads")
"""Options of every worker. They leave Celery's heartbeats and remote control on, without which Flower shows a worker as
offline after 150 s."""


def celery_settings(redis_url: str | SecretStr) -> dict[str, Any]:
    """Return the settings for `Celery.conf.update`; durations are in seconds."""
    url = redis_url.get_secret_value() if isinstance(redis_url, SecretStr) else redis_url
    return {
        "broker_url": url,
        "result_backend": None,
        "task_ignore_result": True,
        # Messages are acknowledged before the work, because with late acknowledgement, a reset connection makes a task
        # run twice.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Workers do not prefetch, because a prefetched notification could no longer go to another worker.
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
            NOTIFY_TASK: {"queue": TRAINING_QUEUE},
            HANDOVER_TASK: {"queue": GENERATE_QUEUE},
            MAINTENANCE_TASK: {"queue": HEALTH_QUEUE},
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
    """Return a Celery app with the settings of `celery_settings` and without tasks; this is enough for `send_task`."""
    app = Celery(name, set_as_current=False)
    app.conf.update(celery_settings(redis_url))
    return app


def make_producer(name: str, redis_url: str | SecretStr, timeout: float = 5.0) -> Celery:
    """Return an app that only publishes messages.

    Publishing fails if Redis takes more than `timeout` seconds to connect or to answer.
    """
    app = make_app(name, redis_url)
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "max_retries": 0,
    }
    return app


def worker_command(app: str, queue: str, arguments: Sequence[str] = (), *, health_tasks: bool = False) -> list[str]:
    """Return the command line of a worker of `queue` that runs one task at a time; `app` names its module.

    With `health_tasks` the worker also takes the task `tidal.health.sweep`, which needs access to the database.
    """
    return [
        sys.executable,
        # Celery warns the root user about message formats that can execute code, but this app accepts only JSON.
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
        f"{queue},{HEALTH_QUEUE}" if health_tasks else queue,
        "--hostname",
        f"{queue}-{secrets.token_hex(3)}@%h",
        *arguments,
    ]
