"""Sends the entries of `hub` as server-sent events. A stream begins at the cursor of the request or with a snapshot.

The cursor is the event id in `Last-Event-ID` (or `?since=`); the stream begins after this event. Without a cursor, the
stream begins with a `snapshot` event, whose id is the position of the snapshot. If the stream cannot continue at the
cursor, it sends a `reset` event and then a snapshot. The id of an event that comes from an entry of the stream is the
Redis id of the entry. One response may contain several streams. A stream without events sends a comment about every
15 s. A client whose socket stays full for `stream_client_seconds` is dropped (`clients`). A shutdown ends all streams.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from operator import attrgetter

import anyio
from fastapi import Request
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from common.errors import InvalidInputError, TidalError
from common.logging import get_logger
from common.redis.generation_events import error_data
from services.api.context import Context
from services.api.streaming.clients import LiveStream
from services.api.streaming.entries import StreamId, encode_sse, format_id, parse_id
from services.api.streaming.hub import Reset
from services.api.streaming.snapshots import StateReader
from tidal_client.wire.generation_event import EVENT_ERROR

log = get_logger(__name__)

RETRY_MILLISECONDS = 2000
"""Milliseconds that a browser waits before it reconnects."""


def cursor_of(request: Request) -> StreamId | None:
    """Return the id of the last event that the client has, or None. Raises InvalidInputError if the id is malformed."""
    given = request.headers.get("last-event-id") or request.query_params.get("since")
    return parse_cursor(given, "query.since") if given else None


def parse_cursor(given: str, location: str) -> StreamId:
    """Parse a stream id that a client sent.

    Raises InvalidInputError, in which `location` names the field of the request.
    """
    try:
        return parse_id(given)
    except ValueError as error:
        raise InvalidInputError(str(error), errors=[{"location": location, "message": str(error)}]) from None


@dataclass(frozen=True, slots=True)
class StreamSource:
    """One requested stream: its Redis key, the client's cursor, and the function that reads the data of a snapshot."""

    key: str
    cursor: StreamId | None
    state: StateReader
    brief: bool = False
    """Whether `log-lines` events are sent without the lines."""


async def stream(context: Context, source: StreamSource) -> LiveStream:
    """Return the response that sends one stream.

    Raises the errors of `source.state`, and RedisError (503), but none after the first byte has been sent.
    """
    context.stream_clients.require_room()
    return LiveStream(await _open(context, source), context.stream_clients)


async def streams(context: Context, sources: Mapping[str, StreamSource]) -> LiveStream:
    """Return one response for several streams. A `topic` event names the stream to which the next events belong.

    For a stream that does not exist, the response contains an `error` event; the other streams continue. Raises
    RedisError and errors that affect all streams (503), but none after the first byte has been sent.
    """
    context.stream_clients.require_room()
    opened = await asyncio.gather(*(_open_or_error(context, source) for source in sources.values()))
    return LiveStream(_merge(context, dict(zip(sources, opened, strict=True))), context.stream_clients)


async def _open_or_error(context: Context, source: StreamSource) -> AsyncGenerator[bytes] | TidalError:
    try:
        return await _open(context, source)
    except TidalError as error:
        if error.status >= 500:
            raise
        return error


async def _open(context: Context, source: StreamSource) -> AsyncGenerator[bytes]:
    """Check that the stream exists, and return its chunks."""
    key, cursor = source.key, source.cursor
    epoch = context.hub.epoch_of(key, cursor) if cursor is not None else None
    first = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    if cursor is None or epoch is None:
        # If there is a cursor, the snapshot is taken only to check that the stream exists. If the hub knows the cursor,
        # the stream exists, and no snapshot is needed.
        snapshot = await context.snapshots.take(key, source.state)
        if cursor is None:
            cursor, epoch = snapshot.position.id, snapshot.position.epoch
            first += encode_sse(format_id(cursor), "snapshot", snapshot.state)
    return _chunks(context, source, cursor, epoch or "", first)


async def _merge(context: Context, opened: Mapping[str, AsyncGenerator[bytes] | TidalError]) -> AsyncGenerator[bytes]:
    """Yield the chunks of all streams as they arrive. End when the first stream ends, so that the client reconnects."""
    waiting: dict[asyncio.Task[bytes], str] = {}
    following = {name: chunks for name, chunks in opened.items() if not isinstance(chunks, TidalError)}
    current = None

    def wait_for(name: str) -> None:
        waiting[asyncio.create_task(anext(following[name]))] = name

    try:
        for name, error in opened.items():
            if isinstance(error, TidalError):
                yield _topic(name) + encode_sse(None, EVENT_ERROR, json.dumps(error_data(context.paths.hide_in(error))))
                current = name
            else:
                wait_for(name)
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                name = waiting.pop(task)
                try:
                    chunk = task.result()
                except StopAsyncIteration:
                    return
                wait_for(name)
                # Empty chunks are forwarded, too, because they make a response without events send a comment.
                if chunk and name != current:
                    chunk = _topic(name) + chunk
                    current = name
                yield chunk
    finally:
        for task in waiting:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*waiting, return_exceptions=True)
            for chunks in following.values():
                await chunks.aclose()


def _topic(name: str) -> bytes:
    return encode_sse(None, "topic", json.dumps(name))


async def _chunks(
    context: Context, source: StreamSource, cursor: StreamId, epoch: str, first: bytes
) -> AsyncGenerator[bytes]:
    yield first
    sent = context.metrics.sse_events
    of_entry = attrgetter("brief" if source.brief else "encoded")
    async for batch in context.hub.follow(source.key, cursor, epoch):
        if isinstance(batch, Reset):
            try:
                snapshot = await context.snapshots.take(source.key, source.state)
            except (SQLAlchemyError, TidalError, RedisError) as error:
                # The client reconnects with its old cursor and then receives the reset.
                log.warning("could not read a snapshot, closing the stream", stream=source.key, error=str(error))
                return
            yield encode_sse(None, "reset", json.dumps({"reason": batch.reason}))
            yield encode_sse(format_id(batch.position), "snapshot", snapshot.state)
        else:
            sent.inc(len(batch))
            yield b"".join(map(of_entry, batch))
