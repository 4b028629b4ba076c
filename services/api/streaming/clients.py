"""The response of a live stream: one task writes, and one task detects that the client has disconnected.

A process may serve a thousand clients, so a client has no timer, queue or task group of its own. Instead, one monitor
task per process serves all clients. It drops a client whose socket has been full for `send_seconds`, and regularly
wakes all streams, because a stream without events must send a keep-alive comment. The module `hub` reads the events,
and `sse` handles cursors and snapshots.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Literal

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from common.errors import UnavailableError
from common.logging import get_logger
from services.api.http_metrics import HttpMetrics

log = get_logger(__name__)

KEEP_ALIVE_SECONDS = 15.0
"""Approximate maximum time between two chunks of a stream. A stream without events sends a comment."""
COMMENT = b": keep-alive\n\n"
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "Connection": "keep-alive",
}
"""Response headers. They make a proxy forward every event at once, without compressing or caching it."""


class TooManyStreams(UnavailableError):
    """Raised when the number of open streams has reached its limit."""

    code = "too_many_streams"


class StreamClients:
    """Keeps the open streams of this process, and runs the task that monitors them."""

    def __init__(self, metrics: HttpMetrics, wake: Callable[[], None], *, send_seconds: float, limit: int) -> None:
        """`wake` makes every stream check whether to send events or a comment.

        `limit` is the maximum number of open streams.
        """
        self.metrics = metrics
        self._wake = wake
        self._send_seconds = send_seconds
        self._limit = limit
        self._open: set[LiveStream] = set()
        self._monitor: asyncio.Task[None] | None = None

    def require_room(self) -> None:
        """Raise TooManyStreams if the maximum number of streams is open. Call this before any work for a new stream."""
        if len(self._open) >= self._limit:
            raise TooManyStreams(
                f"{self._limit} streams are open, which is the limit; close some, follow several topics in one "
                "stream with /api/stream, or raise TIDAL_MAX_CONNECTIONS (streams get half of the connections)"
            )

    def add(self, client: LiveStream) -> None:
        """Add a stream. Raises TooManyStreams if other streams took the last room after `require_room` returned."""
        self.require_room()
        self._open.add(client)
        self.metrics.sse_clients.inc()
        if self._monitor is None or self._monitor.done():
            self._monitor = asyncio.create_task(self._monitor_streams(), name="stream monitor")

    def remove(self, client: LiveStream) -> None:
        """Remove a stream that has ended."""
        self._open.discard(client)
        self.metrics.sse_clients.dec()

    async def _monitor_streams(self) -> None:
        clock = asyncio.get_running_loop().time
        woken = clock()
        while self._open:
            await asyncio.sleep(min(1.0, self._send_seconds / 4, KEEP_ALIVE_SECONDS / 3))
            now = clock()
            for client in list(self._open):
                if client.sending_since is not None and now - client.sending_since >= self._send_seconds:
                    client.end("slow")
            if now - woken >= KEEP_ALIVE_SECONDS / 3:
                woken = now
                self._wake()


class LiveStream(Response):
    """A response that sends the chunks of a generator until the generator ends or the client disconnects.

    An empty chunk means that there are no new events.
    """

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[bytes], clients: StreamClients) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._chunks = chunks
        self._clients = clients
        self._task: asyncio.Task[object] | None = None
        self._ended: Literal["disconnected", "slow"] | None = None
        self.sending_since: float | None = None
        """Time of the event loop's clock at which the current call of `send` began; None between calls."""

    def end(self, reason: Literal["disconnected", "slow"]) -> None:
        """Cancel the task that writes the stream. Only the first call has an effect."""
        if self._ended is None and self._task is not None:
            self._ended = reason
            self._task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._task = asyncio.current_task()
        try:
            self._clients.add(self)
        except TooManyStreams:
            await self._chunks.aclose()
            raise
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await self._write(send)
        except asyncio.CancelledError:
            if self._ended is None or self._task is None or self._task.uncancel() > 0:
                raise
            if self._ended == "slow":
                self._clients.metrics.sse_dropped.inc()
                log.info("dropped a stream client that read too slowly", path=scope["path"])
        finally:
            self._ended = self._ended or "disconnected"
            watcher.cancel()
            self._clients.remove(self)
            with anyio.CancelScope(shield=True):
                await self._chunks.aclose()

    async def _write(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        self.sending_since = clock()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sent_at = clock()
        self.sending_since = None
        async for chunk in self._chunks:
            now = clock()
            if not chunk:
                if now - sent_at < KEEP_ALIVE_SECONDS / 2:
                    continue
                chunk = COMMENT
            self.sending_since = sent_at = now
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self.sending_since = None
            if self._ended:  # `end` was called, but something suppressed its CancelledError
                return
        self.sending_since = clock()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.sending_since = None

    async def _watch(self, receive: Receive) -> None:
        with suppress(Exception):
            while (await receive())["type"] != "http.disconnect":
                pass
        self.end("disconnected")
