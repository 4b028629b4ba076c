"""`python -m services.generator`: replaces itself with a Celery worker of the queue "generate" and one engine child.

Further arguments are passed to `celery worker`. The child imports torch; this process never does.
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
