"""A worker with a bug: `python -m tests.faults.bugs.worker`. SEEDED_BUG selects the bug.

The bugs are in `tests.faults.bugs.worker_app`. The process replaces itself with a Celery worker.
"""

from __future__ import annotations

import os
import sys

from common.redis.celery_settings import worker_command
from common.redis.keys import TRAINING_QUEUE

if __name__ == "__main__":
    os.execv(sys.executable, worker_command("tests.faults.bugs.worker_app", TRAINING_QUEUE, sys.argv[1:]))
