"""The tasks of the generator. Arguments hold ids and numbers only, never prompts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from common.jobs.celery_settings import HANDOVER_TASK, SWEEP_TASK
from services.generator.celery_app import app, generator


def hand_over(request_id: str, texts: int = 1) -> str:
    """Give a request for so many texts to the engine child; the reply goes through Redis."""
    return "handed over" if generator().host.hand_over(request_id, texts) else "the generator is leaving"


def sweep() -> dict[str, Any]:
    """Reaper, doorbells and outbox once, by hand, for when the health process is down."""
    # Imported here: nothing else in the generator needs the database.
    from common.jobs.sweep import sweep_once

    return asdict(sweep_once())


app.task(hand_over, name=HANDOVER_TASK)
app.task(sweep, name=SWEEP_TASK)
