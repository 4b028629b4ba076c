"""`python -m services.worker.healthcheck`: exits with 0 if a training worker on this host has a recent heartbeat."""

from __future__ import annotations

import sys

from common.config import get_settings
from common.redis.heartbeat import alive_on_host
from common.redis.keys import TRAINING_QUEUE

if __name__ == "__main__":
    sys.exit(0 if alive_on_host(get_settings().redis_url.get_secret_value(), TRAINING_QUEUE) else 1)
