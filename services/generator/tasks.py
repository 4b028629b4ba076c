"""The Celery task of the generator. Its arguments are ids and numbers, never prompts.

Leaves out: the sweep on request, which is a task of the training workers, because the generator has no database.
"""

from __future__ import annotations

from common.redis.celery_settings import HANDOVER_TASK
from services.generator.celery_app import app, get_generator


def hand_over(request_id: str, texts: int = 1) -> str:
    """Pass a request for `texts` sequences to the engine child, which sends the reply through Redis."""
    return "handed over" if get_generator().host.hand_over(request_id, texts) else "the generator is shutting down"


app.task(hand_over, name=HANDOVER_TASK)
