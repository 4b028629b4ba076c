"""`python -m services.health.healthcheck`: exit 0 when a sweep has succeeded lately, for container checks.

Otherwise one line says what is wrong: no health process, or one whose sweeps fail.
"""

from __future__ import annotations

import sys

import redis

from common.config import Settings, get_settings
from common.redis.client import COMMANDS, connect
from common.redis.heartbeat import SWEEP_FIELDS, sweep_problem
from common.redis.keys import HEALTH


def trouble(settings: Settings) -> str:
    """Return what is wrong, empty when nothing is."""
    client = connect(settings.redis_url, COMMANDS)
    try:
        swept_at, error_text = (None if value is None else str(value) for value in client.hmget(HEALTH, SWEEP_FIELDS))
    except redis.RedisError as error:
        return f"Redis does not answer: {error}"
    finally:
        client.close()
    return sweep_problem(swept_at, error_text, settings.reaper_seconds)


if __name__ == "__main__":
    wrong = trouble(get_settings())
    sys.stderr.write(wrong and f"{wrong}\n")
    sys.exit(1 if wrong else 0)
