"""The Celery task of the generator. Its arguments are ids and numbers, never prompts.

The task that does the work of the health process once is in `services.worker.tasks`. It is a task of the training
workers, because the generator has no access to the database.
"""

from __future__ import annotations

from common.redis.celery_settings import HANDOVER_TASK
from services.generator.celery_app import app, get_generator


def hand_over(request_id: str, texts: int = 1) -> str:
    """Hand a request for `texts` sequences over to the engine process, which sends the reply through Redis."""
    return "handed over" if get_generator().host.hand_over(request_id, texts) else "the generator is shutting down"


app.task(hand_over, name=HANDOVER_TASK)
