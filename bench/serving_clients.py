"""Streaming clients of `/api/generate` that use little CPU time: raw HTTP/1.1 over asyncio, without parsing JSON.

Each client sends a request, counts the tokens that arrive, and sends the next request until the time is over.
`bench.serving` compares their rate of tokens with that of an engine without the other services.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

TOKEN = b"event: token"
DONE = b"event: done"
END = b"0\r\n\r\n"
BEGIN_SECONDS = 60.0
"""Seconds after which the benchmark fails if a client has no first token yet."""
Bodies = list[Iterator[dict[str, Any]]]


@dataclass
class LoadResult:
    """The counts of all clients together."""

    tokens: int = 0
    """Number of tokens that arrived during the measured time."""
    texts: int = 0
    errors: list[str] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """The address of an api, and the access token for it."""

    host: str
    port: int
    token: str

    @classmethod
    def at(cls, url: str, token: str) -> Server:
        """Return the server for the URL of an api."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port, token)

    def request(self, body: dict[str, Any]) -> bytes:
        """Return the bytes of an HTTP request with this body."""
        text = json.dumps(body).encode()
        head = (
            f"POST /api/generate HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        return head.encode() + text


class Client(asyncio.Protocol):
    """A client that sends its requests one after the other on one connection, until `bodies` ends."""

    def __init__(
        self, server: Server, bodies: Iterator[dict[str, Any]], result: LoadResult, counting: asyncio.Event
    ) -> None:
        self._server = server
        self._bodies = bodies
        self._result = result
        self._counting = counting
        self._tail = b""
        self._head_seen = self._done_seen = self._requesting = False
        self._requested_at = 0.0
        self.started = asyncio.Event()
        self.finished = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send_next()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self._head_seen:
            self._head_seen = True
            if not data.startswith(b"HTTP/1.1 200"):
                self._result.errors.append(data[:300].decode("utf-8", "replace"))
                self._transport.close()
                return
        # `TOKEN` may be split across two reads, so its longest possible beginning is kept for the next search.
        data = self._tail + data
        tokens = data.count(TOKEN)
        self._tail = data[-(len(TOKEN) - 1) :]
        if tokens and self._requested_at:
            self._result.first_token_seconds.append(now - self._requested_at)
            self._requested_at = 0.0
            self.started.set()
        if self._counting.is_set():
            self._result.tokens += tokens
        self._done_seen = self._done_seen or DONE in data
        if data.endswith(END):
            if not self._done_seen:
                self._result.errors.append(data[-300:].decode("utf-8", "replace"))
            self._result.texts += 1
            self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            if self._requesting:
                self._result.errors.append(f"the connection was closed during a reply: {exc}")
            self.finished.set_result(None)

    def disconnect(self) -> None:
        """Close the connection at once, even during a reply."""
        self._requesting = False
        self._transport.abort()

    def _send_next(self) -> None:
        self._tail, self._head_seen, self._done_seen = b"", False, False
        body = next(self._bodies, None)
        self._requesting = body is not None
        if body is None:
            self._transport.close()
            return
        self._requested_at = time.monotonic()
        self._transport.write(self._server.request(body))


async def _run(
    server: Server, bodies: Bodies, result: LoadResult, warm: float, seconds: float, mark: Callable[[], None]
) -> None:
    counting, loop = asyncio.Event(), asyncio.get_running_loop()
    clients = []
    for client_bodies in bodies:
        _, client = await loop.create_connection(
            partial(Client, server, client_bodies, result, counting), server.host, server.port
        )
        clients.append(client)
    async with asyncio.timeout(BEGIN_SECONDS):
        await asyncio.gather(*(client.started.wait() for client in clients))
    await asyncio.sleep(warm)
    result.first_token_seconds.clear()
    mark()
    counting.set()
    await asyncio.sleep(seconds)
    counting.clear()
    mark()
    for client in clients:
        client.disconnect()
    await asyncio.gather(*(client.finished for client in clients))


def run_load(server: Server, bodies: Bodies, *, warm: float, seconds: float, mark: Callable[[], None]) -> LoadResult:
    """Run one client per iterator in `bodies` and return the counts of all clients.

    Counting starts `warm` seconds after all clients have received a token, and ends `seconds` later. `mark` is called
    at the start and at the end of counting.
    """
    result = LoadResult()
    asyncio.run(_run(server, bodies, result, warm, seconds, mark))
    return result
