"""Further faults: clients disconnect, there are too many clients, and one of two generators is killed.

The api, both generators and their engines are real; the model is tiny. There are no jobs, so
`tests.faults.checker`, which checks jobs, is not used. Each client is either served or refused, and a slot becomes free
within a second after its client has disconnected.
"""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from common.redis import keys
from common.redis.generation_events import ENGINE, read_entry
from tests.integration.acceptance.stack import TOKEN, Stack
from tests.integration.acceptance.tiny_model import MODEL, save_tiny_model
from tidal_client import read_events
from tidal_client.wire.generation_event import EVENT_TOKEN

READY_SECONDS = 90.0
"""Longest time in seconds that these tests wait until a new engine serves requests.

The engine has to import torch first.
"""
SLOTS = 8
QUEUE_LIMIT = 60
FREED_SECONDS = 2.0
"""Longest allowed time in seconds until a slot is free again: twice the limit in docs/generation.md."""
LONG = 2500
SETTINGS = {
    "TIDAL_GENERATOR_THREADS": "1",
    "TIDAL_GENERATOR_DEVICE": "cpu",
    "TIDAL_GENERATOR_SLOTS": str(SLOTS),
    "TIDAL_GENERATE_QUEUE_LIMIT": str(QUEUE_LIMIT),
}


@pytest.fixture
def stack(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """Start api and one generator. The model is tiny, and its completions almost always have the maximum length."""
    save_tiny_model(tmp_path / "experiments")
    with Stack(database_url, redis_url, tmp_path) as running:
        running.environment |= SETTINGS
        running.start("generator", "generator")
        running.start_control_plane()
        running.wait_for("the engine", lambda: ask(running, 2).status_code == 200, READY_SECONDS)
        yield running


def body(tokens: int, **fields: Any) -> dict[str, Any]:
    return {"checkpoint": MODEL, "prompt": "Once upon", "maxTokens": tokens, **fields}


def ask(stack: Stack, tokens: int) -> httpx.Response:
    return stack.http.post("/api/generate", json=body(tokens), timeout=READY_SECONDS)


class Engines:
    """Reads the events of all engines from Redis, without the api."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._streams = dict.fromkeys(client.scan_iter(keys.generate_stream("*")), "$")
        for stream in self._streams:
            self._streams[stream] = client.xinfo_stream(stream)["last-generated-id"]
        self.begun: dict[str, str] = {}
        """{request id: name of the engine that sent its first token}."""
        self.ended: dict[str, tuple[float, str]] = {}
        """{request id: (time of its end on the clock of Redis, reason)}."""

    def read(self) -> None:
        found: list[Any] = self._redis.xread(self._streams, block=100) or []
        for stream, entries in found:
            for entry_id, fields in entries:
                self._streams[stream] = entry_id
                for event in read_entry(fields):
                    if event.event == EVENT_TOKEN:
                        self.begun.setdefault(event.request_id, fields[ENGINE])
                    else:
                        data = json.loads(event.data)
                        reason = data.get("finishReason") or data["code"]
                        self.ended[event.request_id] = (int(entry_id.partition("-")[0]) / 1000, reason)

    def until_begun(self, count: int) -> None:
        until = time.monotonic() + READY_SECONDS
        while len(self.begun) < count:
            assert time.monotonic() < until, f"{len(self.begun)} of {count} have begun"
            self.read()

    def until_ended(self) -> None:
        """Wait until every request that has begun has also ended."""
        until = time.monotonic() + READY_SECONDS
        while not self.ended.keys() >= self.begun.keys():
            assert time.monotonic() < until, f"{self.begun.keys() - self.ended.keys()} go on"
            self.read()


def connect(stack: Stack, path: str, fields: dict[str, Any]) -> socket.socket:
    """Open a connection, send a request and return the socket. The reply is not read."""
    text = json.dumps(fields).encode()
    client = socket.create_connection(("127.0.0.1", stack.port))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
    return client


def test_slots_of_disconnected_clients_become_free_for_all_kinds_of_requests(
    stack: Stack, redis_client: redis.Redis
) -> None:
    engines = Engines(redis_client)
    completion = {"model": MODEL, "prompt": "Once upon", "max_tokens": LONG, "n": 3, "stream": True}
    clients = [connect(stack, "/api/generate", body(LONG, stream=number < 3)) for number in range(5)]
    clients.append(connect(stack, "/v1/completions", completion))
    engines.until_begun(6)
    assert not engines.ended, "all eight slots are taken"
    waiting = [connect(stack, "/api/generate", body(LONG, stream=number % 2 == 0)) for number in range(3)]
    waiting.append(connect(stack, "/v1/completions", completion))
    requests = keys.generate_request("*")
    stack.wait_for("the queue", lambda: len(redis_client.keys(requests)) == 4)
    left_at = time.monotonic()
    for client in waiting:
        client.close()
    stack.wait_for("the waiting ones to be forgotten", lambda: not redis_client.keys(requests))
    assert time.monotonic() - left_at < FREED_SECONDS
    left = time.time()
    for client in clients:
        client.close()
    engines.until_ended()
    mine = [engines.ended[request_id] for request_id in engines.begun]
    assert {reason for _, reason in mine} == {"cancelled"}
    assert max(at for at, _ in mine) - left < FREED_SECONDS
    assert ask(stack, 2).status_code == 200


def test_of_500_clients_at_once_each_is_answered_or_refused(stack: Stack) -> None:
    limits = httpx.Limits(max_connections=500)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{stack.port}", headers=headers, limits=limits, timeout=100) as http,
        ThreadPoolExecutor(500) as pool,
    ):
        replies = list(pool.map(lambda _: http.post("/api/generate", json=body(4)), range(500)))
    found = Counter(reply.status_code for reply in replies)
    assert set(found) <= {200, 429, 503}
    assert found[200] >= SLOTS
    assert found[429] >= 1
    refused = [reply for reply in replies if reply.status_code == 429]
    assert {reply.json()["code"] for reply in refused} == {"generation_queue_full"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert ask(stack, 2).status_code == 200


def test_two_generators_share_the_load_and_the_clients_of_a_killed_one_get_errors(
    stack: Stack, redis_client: redis.Redis
) -> None:
    stack.start("second", "generator")
    # An engine subscribes when it is ready. The first engine is ready already.
    present = keys.presence("engine-*")
    stack.wait_for("the second engine", lambda: len(redis_client.pubsub_channels(present)) == 2, READY_SECONDS)
    engines = Engines(redis_client)
    with ThreadPoolExecutor(2 * SLOTS) as pool:

        def follow(_: int) -> list[Any]:
            with stack.http.stream("POST", "/api/generate", json=body(LONG, stream=True), timeout=100) as reply:
                return list(read_events(reply))

        following = [pool.submit(follow, number) for number in range(2 * SLOTS)]
        engines.until_begun(2 * SLOTS)
        load = Counter(engines.begun.values())
        assert sorted(load.values()) == [SLOTS, SLOTS], "a full generator leaves the rest to the other"
        killed = psutil.Process(stack.processes["second"].pid)
        children = killed.children(recursive=True)
        stack.kill("second")
        psutil.wait_procs(children, timeout=10)
        # The first generator finishes its requests, and then serves a new one.
        events = [future.result(READY_SECONDS) for future in following]
    ends = Counter((stream[-1].name, stream[-1].data.get("code")) for stream in events)
    assert ends == {("error", "generator_lost"): SLOTS, ("done", None): SLOTS}
    assert ask(stack, 2).status_code == 200
