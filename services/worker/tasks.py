"""The Celery tasks of the training worker. Their arguments are names of queues, never prompts or configurations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from common.jobs.sweep import run_single_sweep
from common.redis.celery_settings import NOTIFY_TASK, SWEEP_TASK
from services.worker.celery_app import app, worker


def run_next_job(queue: str) -> str:
    """Run the next job of the queue, if there is one.

    The result of the job is in the database; the returned text is only shown in Flower.
    """
    return worker().run_next(queue)


def sweep() -> dict[str, Any]:
    """Do one sweep of the job queue. An operator can send this task while the health process does not run."""
    return asdict(run_single_sweep())


app.task(run_next_job, name=NOTIFY_TASK)
app.task(sweep, name=SWEEP_TASK)
