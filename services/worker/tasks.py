"""The Celery tasks of the training worker. Their arguments are names of queues, never prompts or configurations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from common.jobs.maintenance import run_maintenance_once
from common.redis.celery_settings import MAINTENANCE_TASK, NOTIFY_TASK
from services.worker.celery_app import app, worker


def run_next_job(queue: str) -> str:
    """Run the next job of the queue, if there is one.

    The result of the job is in the database; the returned text is only shown in Flower.
    """
    return worker().run_next(queue)


def maintain() -> dict[str, Any]:
    """Do one maintenance pass (see `common.jobs.maintenance`). An operator can send this task while the health process
    does not run."""
    return asdict(run_maintenance_once())


app.task(run_next_job, name=NOTIFY_TASK)
app.task(maintain, name=MAINTENANCE_TASK)
