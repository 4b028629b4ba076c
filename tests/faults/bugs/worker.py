"""`python -m tests.faults.bugs.worker`: becomes a Celery worker with the bug that SEEDED_BUG names."""

from __future__ import annotations

import os
import sys

from common.redis.celery_settings import worker_command
from common.redis.keys import TRAINING_QUEUE

if __name__ == "__main__":
    os.execv(sys.executable, worker_command("tests.faults.bugs.worker_app", TRAINING_QUEUE, sys.argv[1:]))
