"""Whether the health process does its work, judged from its heartbeat: a reaper that fails must not fail silently.

For the container check of health and for `/readyz`. Leaves out: reading the heartbeat from Redis.
"""

from __future__ import annotations

from datetime import UTC, datetime

FIELDS = ("sweptAt", "trouble")
"""Of the heartbeat."""
MISSED_SWEEPS = 6
LEAST_SECONDS = 60.0
"""A database that restarts is no alarm."""


def sweep_trouble(swept_at: str | None, trouble: str | None, reaper_seconds: float) -> str:
    """What is wrong with the sweeps, empty when nothing is. `swept_at`: ISO time of the last one that succeeded."""
    if swept_at is None:
        return "no health process runs; lost workers are not replaced until one does (python -m services.health)"
    age = (datetime.now(UTC) - datetime.fromisoformat(swept_at)).total_seconds()
    if age <= max(LEAST_SECONDS, MISSED_SWEEPS * reaper_seconds):
        return ""
    return f"the last sweep that succeeded was {age:.0f} s ago; since then: {trouble or 'no answer'}"
