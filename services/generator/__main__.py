"""The entry point `python -m services.generator`.

The process replaces itself with a Celery worker for the queue "generate", which starts one engine process as its child.
The command line's arguments are passed to `celery worker`. Only the engine process imports torch.
"""

from __future__ import annotations

import os
import sys

from common.config.private_files import apply_umask
from common.redis.celery_settings import worker_command
from common.redis.keys import GENERATE_QUEUE

if __name__ == "__main__":
    apply_umask()
    os.execv(sys.executable, worker_command("services.generator.celery_app", GENERATE_QUEUE, sys.argv[1:]))
