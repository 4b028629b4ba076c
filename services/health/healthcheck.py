"""A health check for containers: `python -m services.health.healthcheck`.

It exits with status 0 if a maintenance pass has succeeded recently. Otherwise it exits with 1 and prints the reason
in one line, for example that the health process is missing or that its maintenance passes fail.
"""

from __future__ import annotations

import sys

import redis

from common.config import Settings, get_settings
from common.redis.client import COMMANDS, connect
from common.redis.heartbeat import MAINTENANCE_FIELDS, maintenance_problem
from common.redis.keys import HEALTH


def find_problem(settings: Settings) -> str:
    """Return a description of the problem; "" means that there is no problem."""
    client = connect(settings.redis_url, COMMANDS)
    try:
        last_pass_at, error_text = (
            None if value is None else str(value) for value in client.hmget(HEALTH, MAINTENANCE_FIELDS)
        )
    except redis.RedisError as error:
        return f"Redis does not answer: {error}"
    finally:
        client.close()
    return maintenance_problem(last_pass_at, error_text, settings.reaper_seconds)


if __name__ == "__main__":
    problem = find_problem(get_settings())
    if problem:
        sys.stderr.write(f"{problem}\n")
    sys.exit(1 if problem else 0)
