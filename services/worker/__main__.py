"""The entry point `python -m services.worker`.

The process replaces itself with a Celery worker for the queue "training". The Celery worker runs one job at a time. The
command line's arguments are passed to `celery worker`. Run one such process per GPU, and select the GPU with
CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import os
import sys

from common.config.private_files import apply_umask
from common.redis.celery_settings import worker_command
from common.redis.keys import TRAINING_QUEUE

if __name__ == "__main__":
    apply_umask()
    command = worker_command("services.worker.celery_app", TRAINING_QUEUE, sys.argv[1:], health_tasks=True)
    os.execv(sys.executable, command)
