"""The Celery app of the training worker, for `celery -A services.worker.celery_app worker`.

`python -m services.worker` runs this command. Celery's signals control the worker. `worker_init` ends the process if
the schema of the database is not up to date, before the worker consumes any message. `worker_shutting_down` drains the
worker, and `worker_shutdown` closes it. Celery's pool must be `threads`: with this pool, the drain begins at once even
if a task is still running; with the pool `prefork`, it would not begin at once. Celery's settings are in
`common.redis.celery_settings`, the tasks are in `services.worker.tasks`.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Event
from typing import Any

from celery import signals

from common.config import get_settings
from common.db import make_engine, wait_for_schema
from common.errors import UnavailableError
from common.logging import configure, get_logger
from common.redis.celery_settings import make_app
from common.redis.keys import TRAINING_QUEUE
from services.worker.worker import Worker

log = get_logger(__name__)

app = make_app("tidal-worker", get_settings().redis_url)
app.conf.include = ["services.worker.tasks"]


@lru_cache(maxsize=1)
def worker() -> Worker:
    """Return the worker of this process. The first call creates it."""
    return Worker(get_settings(), queue=TRAINING_QUEUE)


def _configure_logging(**_: Any) -> None:
    configure("worker")


def _check_schema(**_: Any) -> None:
    configure("worker")
    engine = make_engine(get_settings().database_url, application_name="tidal-worker")
    try:
        wait_for_schema(engine, Event())
    except UnavailableError as error:
        log.error(error.message)
        # Celery would only log any other exception of a signal handler, and continue.
        raise SystemExit(1) from None
    finally:
        engine.dispose()


def _start_worker(**_: Any) -> None:
    worker()


def _drain(**_: Any) -> None:
    worker().drain()


def _close(**_: Any) -> None:
    worker().close()


signals.setup_logging.connect(_configure_logging, weak=False)
signals.worker_init.connect(_check_schema, weak=False)
signals.worker_ready.connect(_start_worker, weak=False)
signals.worker_shutting_down.connect(_drain, weak=False)
signals.worker_shutdown.connect(_close, weak=False)
