"""The task of the generator. Arguments hold ids and numbers only, never prompts.

Leaves out the manual sweep, which is a task of the training workers: the generator has no access to the database.
"""

from __future__ import annotations

from common.redis.celery_settings import HANDOVER_TASK
from services.generator.celery_app import app, generator


def hand_over(request_id: str, texts: int = 1) -> str:
    """Pass a request for `texts` texts to the engine child, which sends the reply through Redis."""
    return "handed over" if generator().host.hand_over(request_id, texts) else "the generator is leaving"


app.task(hand_over, name=HANDOVER_TASK)
