"""Helpers for tests of live streams: a stream in Redis, its entries, and the metrics of its clients."""

from __future__ import annotations

import json
import time

import pytest
import redis

from common.redis.keys import experiment_stream
from tests.integration.api.conftest import Api


def add(client: redis.Redis, key: str, number: int, event: str = "metrics") -> str:
    """Add an event to the stream `key` and return the id of its entry."""
    return str(client.xadd(key, {"event": event, "data": json.dumps({"n": number})}))


@pytest.fixture
def path(api: Api, redis_client: redis.Redis) -> str:
    """Submit a job; return the URL path of its experiment's stream, whose first entry reports the submission."""
    experiment = api.submit()["experimentId"]
    assert redis_client.xread({experiment_stream(experiment): "0"}, block=5000)
    return f"/api/experiments/{experiment}/stream"


@pytest.fixture
def key(path: str) -> str:
    """Return the key in Redis of the stream at `path`."""
    return experiment_stream(path.split("/")[3])


def shows(api: Api, line: str) -> bool:
    """Return whether /metrics contains `line` within 20 s; the server may notice a closed connection late."""
    deadline = time.monotonic() + 20
    while line not in api.http.get("/metrics").text:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
