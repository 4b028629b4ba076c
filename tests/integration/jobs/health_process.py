"""The environment variables of a health process with short intervals."""

from __future__ import annotations

import os


def environment(database_url: str, redis_url: str) -> dict[str, str]:
    """Return the environment of this process with `database_url`, `redis_url`, and intervals below one second."""
    return {
        **os.environ,
        "TIDAL_DATABASE_URL": database_url,
        "TIDAL_REDIS_URL": redis_url,
        "TIDAL_REAPER_SECONDS": "0.2",
        "TIDAL_REAPER_CONTACT_SECONDS": "0.5",
        "TIDAL_QUARANTINE_SECONDS": "0.5",
    }
