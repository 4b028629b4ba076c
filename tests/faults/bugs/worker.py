"""`python -m tests.faults.bugs.worker`: replaces itself with a Celery worker that has the bug in SEEDED_BUG."""

from __future__ import annotations

import os
import sys

from common.redis.celery_settings import worker_command
from common.redis.keys import TRAINING_QUEUE

if __name__ == "__main__":
    os.execv(sys.executable, worker_command("tests.faults.bugs.worker_app", TRAINING_QUEUE, sys.argv[1:]))
