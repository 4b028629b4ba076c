"""Server-sent events over `stream_hub`: cursor of the request, snapshot, wire format, slow clients, shutdown.

A stream begins after `Last-Event-ID` (or `?since=`). Without one it begins with a `snapshot` event that carries the
position it was made at; with one that cannot be continued, with a `reset` event and then the snapshot. Every other
event carries `id:` = Redis stream id. A comment goes out every 15 s; a client whose socket stays full for
`stream_client_seconds` is closed; shutdown ends all streams.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from common.errors import InvalidInputError, TidalError
from common.logging import get_logger
from services.api.http_metrics import HttpMetrics
from services.api.stream_hub import Reset, StreamHub
from services.api.stream_ids import StreamId, format_id, parse_id

log = get_logger(__name__)

KEEP_ALIVE_SECONDS = 15
RETRY_MILLISECONDS = 2000
"""How long a browser waits before it connects again."""

Snapshot = Callable[[], Awaitable[Any]]
"""Makes the present state, ready for JSON."""


def encode(stream_id: str | None, event: str, data: str) -> bytes:
    """One event on the wire."""
    return ServerSentEvent(data, event=event, id=stream_id, sep="\n").encode()


def cursor_of(request: Request) -> StreamId | None:
    """The position a client wants to go on from. InvalidInputError when it is no stream id."""
    given = request.headers.get("last-event-id") or request.query_params.get("since")
    if not given:
        return None
    try:
        return parse_id(given)
    except ValueError as error:
        raise InvalidInputError(str(error), errors=[{"location": "query.since", "message": str(error)}]) from None


class EventStream(EventSourceResponse):
    """A stream response that counts its clients and ends quietly when one reads too slowly."""

    def __init__(self, content: AsyncIterator[bytes], metrics: HttpMetrics, *, send_seconds: float) -> None:
        super().__init__(
            content,
            ping=KEEP_ALIVE_SECONDS,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
            sep="\n",
            send_timeout=send_seconds,
            # The generator ends by itself once the hub closes; this is the time it has for it.
            shutdown_grace_period=5,
            headers={"Cache-Control": "no-cache, no-transform"},
        )
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.sse_clients.inc()
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            self._metrics.sse_dropped.inc()
            log.info("stream client dropped, it read too slowly", path=scope["path"])
        finally:
            self._metrics.sse_clients.dec()


async def stream(
    hub: StreamHub, metrics: HttpMetrics, key: str, request: Request, snapshot: Snapshot, *, send_seconds: float
) -> EventStream:
    """The response of a stream endpoint. RedisError (503) before the first byte when Redis is away."""
    cursor, epoch = cursor_of(request), ""
    first: list[bytes] = [f"retry: {RETRY_MILLISECONDS}\n\n".encode()]
    if cursor is None:
        # Position first, state second: what happens in between is sent twice rather than not at all.
        position = await hub.position(key)
        cursor, epoch = position.id, position.epoch
        first.append(encode(format_id(cursor), "snapshot", json.dumps(await snapshot())))
    else:
        await hub.position(key)
    return EventStream(_events(hub, metrics, key, cursor, first, snapshot, epoch), metrics, send_seconds=send_seconds)


async def _events(
    hub: StreamHub,
    metrics: HttpMetrics,
    key: str,
    cursor: StreamId,
    first: list[bytes],
    snapshot: Snapshot,
    epoch: str,
) -> AsyncIterator[bytes]:
    yield b"".join(first)
    async for batch in hub.follow(key, cursor, epoch):
        if isinstance(batch, Reset):
            try:
                state = json.dumps(await snapshot())
            except (SQLAlchemyError, TidalError) as error:
                # The client connects again with its old cursor and is reset then.
                log.warning("stream closed, no snapshot could be made", stream=key, error=str(error))
                return
            yield encode(None, "reset", json.dumps({"reason": batch.reason}))
            yield encode(format_id(batch.position), "snapshot", state)
        else:
            metrics.sse_events.inc(len(batch))
            yield b"".join(entry.encoded for entry in batch)
