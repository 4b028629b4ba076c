"""Server-sent events over `stream_hub`: cursor of the request, snapshot, wire format.

A stream begins after `Last-Event-ID` (or `?since=`). Without one it begins with a `snapshot` event that carries the
position it was made at; with one that cannot be continued, with a `reset` event and then the snapshot. Every other
event carries `id:` = Redis stream id. A comment goes out every 15 s; a client whose socket stays full for
`stream_client_seconds` is closed (`stream_clients`); shutdown ends all streams.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from fastapi import Request
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sse_starlette import ServerSentEvent

from common.errors import InvalidInputError, TidalError
from common.logging import get_logger
from services.api.stream_clients import LiveStream
from services.api.stream_hub import Reset
from services.api.stream_ids import StreamId, format_id, parse_id
from services.api.stream_snapshots import Make

if TYPE_CHECKING:
    from services.api.context import Context

log = get_logger(__name__)

RETRY_MILLISECONDS = 2000
"""How long a browser waits before it connects again."""


def encode(stream_id: str | None, event: str, data: str) -> bytes:
    """One event on the wire."""
    if "\n" not in data and "\r" not in data:
        # JSON has no line breaks; the general way costs as much as all the rest of a token.
        head = "" if stream_id is None else f"id: {stream_id}\n"
        return f"{head}event: {event}\ndata: {data}\n\n".encode()
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


async def stream(context: Context, key: str, request: Request, state: Make) -> LiveStream:
    """The response of a stream endpoint. What `state` raises and RedisError (503) before the first byte."""
    cursor = cursor_of(request)
    epoch = context.hub.epoch_of(key, cursor) if cursor is not None else None
    first = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    if cursor is None or epoch is None:
        # With a cursor it only tells what does not exist; a cursor in the ring needs no such question.
        snapshot = await context.snapshots.take(key, state)
        if cursor is None:
            cursor, epoch = snapshot.position.id, snapshot.position.epoch
            first += encode(format_id(cursor), "snapshot", snapshot.state)
    return LiveStream(_chunks(context, key, cursor, epoch or "", first, state), context.stream_clients)


async def _chunks(
    context: Context, key: str, cursor: StreamId, epoch: str, first: bytes, state: Make
) -> AsyncGenerator[bytes]:
    yield first
    sent = context.metrics.sse_events
    async for batch in context.hub.follow(key, cursor, epoch):
        if isinstance(batch, Reset):
            try:
                snapshot = await context.snapshots.take(key, state)
            except (SQLAlchemyError, TidalError, RedisError) as error:
                # The client connects again with its old cursor and is reset then.
                log.warning("stream closed, no snapshot could be made", stream=key, error=str(error))
                return
            yield encode(None, "reset", json.dumps({"reason": batch.reason}))
            yield encode(format_id(batch.position), "snapshot", snapshot.state)
        elif len(batch) == 1:
            sent.inc()
            yield batch[0].encoded
        else:
            sent.inc(len(batch))
            yield b"".join(entry.encoded for entry in batch)
