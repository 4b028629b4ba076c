"""Clients that leave in the middle: how long the engine goes on writing for them, by what the engine itself says.

The engine ends a cancelled text with an error, whose stream id is the time at which Redis took it; what lies between
that and the closing of the socket is the figure. Texts are told apart by their seeds. Clients that leave while they
wait in the queue hold no slot; for them the figure is the time until their request can no longer be begun.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import redis

from bench.serving_clients import Server
from common.redis import keys
from common.redis.generation_events import EncodedEvent, read_entry
from tidal_client.wire.generation_event import EVENT_ERROR, EVENT_TOKEN

LIMIT_SECONDS = 20.0
"""Waiting for one thing; no promise."""
QUIET_SECONDS = 1.5
SLOTS = 64


class Leavers:
    """Clients of one api; `delays` are the seconds from leaving to the free slot."""

    def __init__(self, server: Server, redis_url: str, body: dict[str, Any]) -> None:
        self._server = server
        self._redis = redis.Redis.from_url(redis_url, decode_responses=True)
        self._body = {**body, "maxTokens": 900}
        self._seed = 10_000_000
        self._open: dict[int, socket.socket] = {}
        self._left_at: dict[int, float] = {}
        self._begun: set[str] = set()
        self.delays: dict[int, float] = {}
        self._last = {str(key): self._newest(str(key)) for key in self._redis.scan_iter(keys.generate_stream("*"))}
        self._heard_at = time.time()
        # Until those that left before are silent: their tokens would be taken for those of ours.
        self._until(lambda: time.time() - self._heard_at > QUIET_SECONDS)

    def round(self, streaming: int, whole: int) -> None:
        """So many clients begin, leave all at once, and their slots become free."""
        seeds = [self._ask(stream=number < streaming) for number in range(streaming + whole)]
        wanted = len(self._begun) + len(seeds)
        self._until(lambda: len(self._begun) >= wanted)
        self._leave(seeds)
        self._until(lambda: all(seed in self.delays for seed in seeds))

    def queued(self, count: int) -> list[float]:
        """So many clients leave while others hold all slots: seconds until their requests were gone."""
        holders = [self._ask(stream=True) for _ in range(SLOTS)]
        wanted = len(self._begun) + SLOTS
        self._until(lambda: len(self._begun) >= wanted)
        seeds = [self._ask(stream=number % 2 == 0) for number in range(count)]
        self._until(lambda: self._waiting() == count)
        began = time.time()
        self._leave(seeds)
        gone: list[float] = []
        while len(gone) < count and time.time() - began < LIMIT_SECONDS:
            self._read()
            gone += [time.time() - began] * (count - self._waiting() - len(gone))
        self._leave(holders)
        self._until(lambda: all(seed in self.delays for seed in holders))
        for seed in holders:
            del self.delays[seed]
        return gone

    def _waiting(self) -> int:
        return sum(1 for _ in self._redis.scan_iter(keys.generate_request("*"), count=1000))

    def _ask(self, *, stream: bool) -> int:
        self._seed += 1
        connection = socket.create_connection((self._server.host, self._server.port))
        connection.sendall(self._server.request({**self._body, "seed": self._seed, "stream": stream}))
        self._open[self._seed] = connection
        return self._seed

    def _leave(self, seeds: list[int]) -> None:
        for seed in seeds:
            self._left_at[seed] = time.time()
            self._open.pop(seed).close()

    def _until(self, check: Callable[[], bool]) -> None:
        until = time.time() + LIMIT_SECONDS
        while not check():
            if time.time() > until:
                raise RuntimeError(f"waited {LIMIT_SECONDS:.0f} s; {len(self.delays)} slots were freed")
            self._read()

    def _newest(self, key: str) -> str:
        return str(self._redis.xinfo_stream(key)["last-generated-id"])

    def _read(self) -> None:
        found: list[Any] = self._redis.xread(dict(self._last), block=50) or []
        for key, entries in found:
            for entry_id, fields in entries:
                self._last[key] = entry_id
                at = int(entry_id.partition("-")[0]) / 1000
                for event in read_entry(fields):
                    self._hear(event, at)

    def _hear(self, event: EncodedEvent, at: float) -> None:
        self._heard_at = time.time()
        if event.event == EVENT_TOKEN:
            self._begun.add(event.request_id)
        if event.event == EVENT_ERROR:
            error = json.loads(event.data)
            if error["code"] == "cancelled" and error["seed"] in self._left_at:
                self.delays[error["seed"]] = at - self._left_at[error["seed"]]
