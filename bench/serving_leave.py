"""Measures how long the engine continues to generate for clients that have disconnected.

The engine ends a cancelled sequence with an error event. The id of this event in the Redis stream contains the time at
which Redis received it. The figure is the time from the closing of the socket to that event. Sequences are identified
by their seeds. A client that disconnects while its request is queued has no slot; its figure is the time until the
request is removed from Redis.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import redis

from bench.serving_clients import Server
from common.redis import keys
from common.redis.generation_events import EncodedEvent, read_entry
from tidal_client.wire.generation_event import EVENT_ERROR, EVENT_TOKEN

LIMIT_SECONDS = 20.0
"""Seconds after which the benchmark fails if a condition is still not met."""
QUIET_SECONDS = 1.5
SLOTS = 64


class DisconnectingClients:
    """Clients of one api. `delays` is {seed: seconds from the disconnect until the slot is free}."""

    def __init__(self, server: Server, redis_url: str, body: dict[str, Any]) -> None:
        self._server = server
        self._redis = redis.Redis.from_url(redis_url, decode_responses=True)
        self._body = {**body, "maxTokens": 900}
        self._seed = 10_000_000
        self._connections: dict[int, socket.socket] = {}
        self._disconnected_at: dict[int, float] = {}
        self._started: set[str] = set()
        self.delays: dict[int, float] = {}
        self._last = {str(key): self._newest(str(key)) for key in self._redis.scan_iter(keys.generate_stream("*"))}
        self._received_at = time.time()
        # Wait until sequences of earlier clients have ended, because their tokens would be counted too.
        self._read_until(lambda: time.time() - self._received_at > QUIET_SECONDS)

    def disconnect_while_generating(self, streaming: int, not_streaming: int) -> None:
        """Start clients, disconnect all of them once each has received a token, and wait until their slots are free."""
        seeds = [self._send(stream=number < streaming) for number in range(streaming + not_streaming)]
        expected = len(self._started) + len(seeds)
        self._read_until(lambda: len(self._started) >= expected)
        self._disconnect(seeds)
        self._read_until(lambda: all(seed in self.delays for seed in seeds))

    def disconnect_while_queued(self, count: int) -> list[float]:
        """Disconnect `count` clients whose requests are queued. Return the seconds until each request is removed."""
        holders = [self._send(stream=True) for _ in range(SLOTS)]
        expected = len(self._started) + SLOTS
        self._read_until(lambda: len(self._started) >= expected)
        seeds = [self._send(stream=number % 2 == 0) for number in range(count)]
        self._read_until(lambda: self._waiting() == count)
        began = time.time()
        self._disconnect(seeds)
        removed: list[float] = []
        while len(removed) < count and time.time() - began < LIMIT_SECONDS:
            self._read()
            removed += [time.time() - began] * (count - self._waiting() - len(removed))
        self._disconnect(holders)
        self._read_until(lambda: all(seed in self.delays for seed in holders))
        for seed in holders:
            del self.delays[seed]
        return removed

    def _waiting(self) -> int:
        return sum(1 for _ in self._redis.scan_iter(keys.generate_request("*"), count=1000))

    def _send(self, *, stream: bool) -> int:
        self._seed += 1
        connection = socket.create_connection((self._server.host, self._server.port))
        connection.sendall(self._server.request({**self._body, "seed": self._seed, "stream": stream}))
        self._connections[self._seed] = connection
        return self._seed

    def _disconnect(self, seeds: list[int]) -> None:
        for seed in seeds:
            self._disconnected_at[seed] = time.time()
            self._connections.pop(seed).close()

    def _read_until(self, check: Callable[[], bool]) -> None:
        until = time.time() + LIMIT_SECONDS
        while not check():
            if time.time() > until:
                raise RuntimeError(
                    f"the condition was not met within {LIMIT_SECONDS:.0f} s; {len(self.delays)} slots were freed"
                )
            self._read()

    def _newest(self, key: str) -> str:
        return str(self._redis.xinfo_stream(key)["last-generated-id"])

    def _read(self) -> None:
        found: Any = self._redis.xread(cast(Any, self._last), block=50) or []
        for key, entries in found:
            for entry_id, fields in entries:
                self._last[key] = entry_id
                at = int(entry_id.partition("-")[0]) / 1000
                for event in read_entry(fields):
                    self._handle(event, at)

    def _handle(self, event: EncodedEvent, at: float) -> None:
        self._received_at = time.time()
        if event.event == EVENT_TOKEN:
            self._started.add(event.request_id)
        if event.event == EVENT_ERROR:
            error = json.loads(event.data)
            if error["code"] == "cancelled" and error["seed"] in self._disconnected_at:
                self.delays[error["seed"]] = at - self._disconnected_at[error["seed"]]
