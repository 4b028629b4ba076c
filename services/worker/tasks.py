"""The tasks of the training worker. Arguments hold names only, never prompts or configurations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from common.jobs.sweep import run_single_sweep
from common.redis.celery_settings import NOTIFY_TASK, SWEEP_TASK
from services.worker.celery_app import app, worker


def run_next_job(queue: str) -> str:
    """Run the best job of the queue, if there is one. The row in Postgres holds the result, this text is for Flower."""
    return worker().run_next(queue)


def sweep() -> dict[str, Any]:
    """Reaper, doorbells and outbox once, by hand, for when the health process is down."""
    return asdict(run_single_sweep())


app.task(run_next_job, name=NOTIFY_TASK)
app.task(sweep, name=SWEEP_TASK)
