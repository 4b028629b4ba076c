"""The live stream contains every point once, in the order of the steps, even if Redis fails or restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from common.metrics import MetricsWriter
from common.redis import keys
from services.local.servers import ValkeyServer
from tests.metrics_oracle import read_metrics


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Start a Redis server that the test may kill."""
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    yield server
    server.remove()


def points(client: redis.Redis, kind: str = keys.EVENT_METRICS) -> list[int]:
    """Return the steps in the live stream, in stream order."""
    entries = client.xrange(keys.experiment_stream("e1"))
    return [p["step"] for _, e in entries if e["event"] == kind for p in json.loads(e["data"])["points"]]


def test_points_arrive_in_the_stream_in_order(redis_url: str, redis_client: redis.Redis, tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, redis_url, "e1", "j1", 2) as writer:
        writer.rewind(4)
        for step in range(5, 500):
            writer.add("metrics", step, {"loss": 1.0})
        writer.add("rl-metrics", 1, {"entropy": 0.1})
    assert points(redis_client) == list(range(5, 500))
    assert points(redis_client, keys.EVENT_RL_METRICS) == [1]
    entries = [e for _, e in redis_client.xrange(keys.experiment_stream("e1"))]
    rewinds = [json.loads(e["data"]) for e in entries if e["event"] == keys.EVENT_REWIND]
    assert {"kind": "metrics", "attempt": 2, "step": 4} in rewinds
    first = json.loads(next(e["data"] for e in entries if e["event"] == "metrics"))["points"][0]
    assert (first["attempt"], first["values"]) == (2, {"loss": 1.0})


def test_a_point_is_in_the_stream_while_the_writer_is_open(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    with MetricsWriter(tmp_path, redis_url, "e1", "j1", 1) as writer:
        writer.add("metrics", 1, {"loss": 1.0})
        entries = redis_client.xread({keys.experiment_stream("e1"): "0"}, block=5000)
        assert entries, "nothing came while the writer was open"


def test_kill_9_of_redis_loses_and_repeats_no_point(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, own_valkey.url, "e1", "j1", 1, segment_bytes=2000, flush_seconds=0.02)
    step = 0
    for _ in range(4):
        for _ in range(100):
            step += 1
            writer.add("metrics", step, {"loss": 1.0})
        writer.flush()
        assert own_valkey.pid is not None
        psutil.Process(own_valkey.pid).kill()
        for _ in range(100):
            step += 1
            writer.add("metrics", step, {"loss": 1.0})
        writer.flush()
        own_valkey.start()
    writer.close()
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == list(range(1, step + 1))
    with redis.Redis.from_url(own_valkey.url, decode_responses=True) as client:
        assert points(client) == list(range(1, step + 1))


def test_after_redis_was_emptied_the_stream_continues_with_new_points(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    writer = MetricsWriter(tmp_path, redis_url, "e1", "j1", 1, flush_seconds=0.02)
    writer.add("metrics", 1, {"loss": 1.0})
    redis_client.xread({keys.experiment_stream("e1"): "0"}, block=5000)
    redis_client.flushall()
    writer.add("metrics", 2, {"loss": 1.0})
    writer.close()
    assert points(redis_client) == [2]
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == [1, 2]


def test_an_unavailable_redis_does_not_delay_training_and_delays_closing_by_seconds(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, "redis://127.0.0.1:1/0", "e1", "j1", 1)
    for step in range(100):
        writer.add("metrics", step, {"loss": 1.0})
    writer.close()
    assert [p.step for p in read_metrics(tmp_path, "metrics")] == list(range(100))
