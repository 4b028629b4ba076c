"""Writes heartbeats as a worker does."""

from __future__ import annotations

import time
from typing import Any

import redis

from common.redis import keys


def beat(client: redis.Redis, worker: str, **fields: str) -> None:
    """Write a heartbeat of an idle training worker; `fields` replace or add fields."""
    mapping: dict[Any, Any] = {"worker": worker, "queue": "training", "host": "h", "device": "cpu", "state": "idle"}
    client.hset(keys.heartbeat(worker), mapping={**mapping, **fields})
    client.zadd(keys.WORKERS, {worker: time.time()})
