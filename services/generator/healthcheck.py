"""A health check: `python -m services.generator.healthcheck`.

It exits with status 0 if a generator on this host has sent a heartbeat recently, otherwise with 1.
"""

from __future__ import annotations

import sys

from common.config import get_settings
from common.redis.heartbeat import alive_on_host
from common.redis.keys import GENERATE_QUEUE

if __name__ == "__main__":
    sys.exit(0 if alive_on_host(get_settings().redis_url.get_secret_value(), GENERATE_QUEUE) else 1)
