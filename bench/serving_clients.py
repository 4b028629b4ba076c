"""Streaming clients of `/api/generate` that cost next to nothing: raw HTTP/1.1 over asyncio, nothing is parsed as JSON.

Each client asks, counts the tokens that come, and asks again until the time is over. Leaves out: what the figures are
compared with (`bench.serving`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TOKEN = b"event: token"
DONE = b"event: done"
END = b"0\r\n\r\n"
BEGIN_SECONDS = 60.0
"""Until every client has its first token; no promise."""
Bodies = list[Iterator[dict[str, Any]]]


@dataclass
class Load:
    """What all clients saw. Times are `time.monotonic()`."""

    tokens: int = 0
    """Within the time that counts."""
    texts: int = 0
    errors: list[str] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """Where to ask, and with what."""

    host: str
    port: int
    token: str

    @classmethod
    def at(cls, url: str, token: str) -> Server:
        """From the url of an api."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port, token)

    def request(self, body: dict[str, Any]) -> bytes:
        """The bytes of one request."""
        text = json.dumps(body).encode()
        head = (
            f"POST /api/generate HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        return head.encode() + text


class Client(asyncio.Protocol):
    """One client that asks for one body after the other on one connection, until they end."""

    def __init__(self, server: Server, bodies: Iterator[dict[str, Any]], load: Load, counts: asyncio.Event) -> None:
        self._server = server
        self._bodies = bodies
        self._load = load
        self._counts = counts
        self._tail = b""
        self.begun = asyncio.Event()
        self.finished = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self._head_seen:
            self._head_seen = True
            if not data.startswith(b"HTTP/1.1 200"):
                self._load.errors.append(data[:300].decode("utf-8", "replace"))
                self._transport.close()
                return
        # A name may lie across two reads: the end of the last one is looked at again, short of a whole name.
        data = self._tail + data
        tokens = data.count(TOKEN)
        self._tail = data[-(len(TOKEN) - 1) :]
        if tokens and self._asked_at:
            self._load.first_token_seconds.append(now - self._asked_at)
            self._asked_at = 0.0
            self.begun.set()
        if self._counts.is_set():
            self._load.tokens += tokens
        self._ended = self._ended or DONE in data
        if data.endswith(END):
            if not self._ended:
                self._load.errors.append(data[-300:].decode("utf-8", "replace"))
            self._load.texts += 1
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            if self._asking:
                self._load.errors.append(f"the connection was closed: {exc}")
            self.finished.set_result(None)

    def leave(self) -> None:
        """Close in the middle, whatever is going on."""
        self._asking = False
        self._transport.abort()

    def _ask(self) -> None:
        self._tail, self._head_seen, self._ended = b"", False, False
        body = next(self._bodies, None)
        self._asking = body is not None
        if body is None:
            self._transport.close()
            return
        self._asked_at = time.monotonic()
        self._transport.write(self._server.request(body))


async def _run(
    server: Server, bodies: Bodies, load: Load, warm: float, seconds: float, mark: Callable[[], None]
) -> None:
    counts, loop = asyncio.Event(), asyncio.get_running_loop()
    clients = []
    for its in bodies:
        _, client = await loop.create_connection(
            lambda its=its: Client(server, its, load, counts), server.host, server.port
        )
        clients.append(client)
    async with asyncio.timeout(BEGIN_SECONDS):
        await asyncio.gather(*(client.begun.wait() for client in clients))
    await asyncio.sleep(warm)
    load.first_token_seconds.clear()
    mark()
    counts.set()
    await asyncio.sleep(seconds)
    counts.clear()
    mark()
    for client in clients:
        client.leave()
    await asyncio.gather(*(client.finished for client in clients))


def run_load(server: Server, bodies: Bodies, *, warm: float, seconds: float, mark: Callable[[], None]) -> Load:
    """One client per iterator of bodies. What happens until all have begun, and `warm` seconds more, is not counted;
    `mark` is called at both ends of the time that is."""
    load = Load()
    asyncio.run(_run(server, bodies, load, warm, seconds, mark))
    return load
