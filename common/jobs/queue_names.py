"""Names of the Celery queues, for those that need no Celery."""

from __future__ import annotations

from typing import Final

TRAINING_QUEUE: Final = "training"
GENERATE_QUEUE: Final = "generate"
HEALTH_QUEUE: Final = "health"
"""Work by hand when the health loop is down; every worker listens to it."""
