"""Entries of live streams, and what a client shows of them."""

from __future__ import annotations

import json

import pytest
import redis

from common.redis.keys import experiment_stream
from tests.integration.api.conftest import Api


def add(client: redis.Redis, key: str, number: int, event: str = "metrics") -> str:
    return str(client.xadd(key, {"event": event, "data": json.dumps({"n": number})}))


@pytest.fixture
def path(api: Api, redis_client: redis.Redis) -> str:
    """The stream of a new experiment, once its first entry (the job was submitted) has arrived."""
    experiment = api.submit()["experimentId"]
    assert redis_client.xread({experiment_stream(experiment): "0"}, block=5000)
    return f"/api/experiments/{experiment}/stream"


@pytest.fixture
def key(path: str) -> str:
    return experiment_stream(path.split("/")[3])


def shows(api: Api, line: str) -> bool:
    """Whether the metrics come to say so: the server notices a closed connection on its own."""
    return any(line in api.http.get("/metrics").text for _ in range(500))
