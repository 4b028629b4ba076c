"""`python -m services.worker`: becomes a Celery worker of the queue "training" with one slot.

Further arguments go to `celery worker`. One process per GPU; set CUDA_VISIBLE_DEVICES to choose it.
"""

from __future__ import annotations

import os
import sys

from common.config.private_files import apply_umask
from common.redis.celery_settings import worker_command
from common.redis.keys import TRAINING_QUEUE

if __name__ == "__main__":
    apply_umask()
    command = worker_command("services.worker.celery_app", TRAINING_QUEUE, sys.argv[1:], sweeps=True)
    os.execv(sys.executable, command)
