"""`python -m services.health.healthcheck`: exit 0 when a health process has beaten lately, for container checks."""

from __future__ import annotations

import sys

import redis

from common.config import Settings, get_settings
from common.jobs.publisher import HEARTBEAT_KEY


def check(settings: Settings) -> bool:
    """Whether the heartbeat key is there; False also when Redis does not answer."""
    client = redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=5, socket_connect_timeout=5)
    try:
        return bool(client.exists(HEARTBEAT_KEY))
    except redis.RedisError:
        return False
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(0 if check(get_settings()) else 1)
