"""The task of the generator. Arguments hold ids and numbers only, never prompts.

Leaves out sweeping by hand, which training workers do: the generator knows no database.
"""

from __future__ import annotations

from common.jobs.celery_settings import HANDOVER_TASK
from services.generator.celery_app import app, generator


def hand_over(request_id: str, texts: int = 1) -> str:
    """Give a request for so many texts to the engine child; the reply goes through Redis."""
    return "handed over" if generator().host.hand_over(request_id, texts) else "the generator is leaving"


app.task(hand_over, name=HANDOVER_TASK)
