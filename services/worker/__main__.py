"""`python -m services.worker`: becomes a Celery worker of the queue "training" with one slot.

Further arguments go to `celery worker`. One process per GPU; set CUDA_VISIBLE_DEVICES to choose it.
"""

from __future__ import annotations

import os
import secrets
import sys

from common.jobs.celery_settings import HEALTH_QUEUE, TRAINING_QUEUE, WORKER_FLAGS


def command(arguments: list[str]) -> list[str]:
    """The command line that replaces this process."""
    return [
        sys.executable,
        "-m",
        "celery",
        "--app",
        "services.worker.celery_app",
        "worker",
        *WORKER_FLAGS,
        "--concurrency",
        "1",
        "--queues",
        f"{TRAINING_QUEUE},{HEALTH_QUEUE}",
        "--hostname",
        f"training-{secrets.token_hex(3)}@%h",
        *arguments,
    ]


if __name__ == "__main__":
    os.execv(sys.executable, command(sys.argv[1:]))
