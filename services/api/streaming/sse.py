"""Server-sent events over `hub`: cursor of the request, snapshot, several streams in one response.

A stream begins after `Last-Event-ID` (or `?since=`). Without one it begins with a `snapshot` event that carries the
position it was made at; with one that cannot be continued, with a `reset` event and then the snapshot. Every other
event carries `id:` = Redis stream id. A comment goes out every 15 s; a client whose socket stays full for
`stream_client_seconds` is closed (`clients`); shutdown ends all streams.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from operator import attrgetter

from fastapi import Request
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from common.errors import InvalidInputError, TidalError
from common.logging import get_logger
from common.redis.generation_events import error_data
from services.api.context import Context
from services.api.streaming.clients import LiveStream
from services.api.streaming.entries import StreamId, encode, format_id, parse_id
from services.api.streaming.hub import Reset
from services.api.streaming.snapshots import Make
from tidal_client.wire.generation_event import EVENT_ERROR

log = get_logger(__name__)

RETRY_MILLISECONDS = 2000
"""How long a browser waits before it connects again."""


def cursor_of(request: Request) -> StreamId | None:
    """The position a client wants to go on from. InvalidInputError when it is no stream id."""
    given = request.headers.get("last-event-id") or request.query_params.get("since")
    return parse_cursor(given, "query.since") if given else None


def parse_cursor(given: str, location: str) -> StreamId:
    """A stream id that a client sent at `location`. InvalidInputError when it is none."""
    try:
        return parse_id(given)
    except ValueError as error:
        raise InvalidInputError(str(error), errors=[{"location": location, "message": str(error)}]) from None


@dataclass(frozen=True, slots=True)
class Source:
    """One stream that a client wants: its Redis key, where to go on, how to make its snapshot, and how much of it."""

    key: str
    cursor: StreamId | None
    state: Make
    brief: bool = False
    """Without the lines of a log: `log-lines` events tell a position only."""


async def stream(context: Context, source: Source) -> LiveStream:
    """The response of a stream endpoint. Raises what `state` raises, and RedisError (503), before the first byte."""
    context.stream_clients.require_room()
    return LiveStream(await _open(context, source), context.stream_clients)


async def streams(context: Context, sources: Mapping[str, Source]) -> LiveStream:
    """Several streams as one response: an event `topic` says to which of them the events after it belong.

    One that does not exist is an `error` event of its topic, and the others go on. Raises RedisError and what makes
    all of them impossible (503) before the first byte.
    """
    context.stream_clients.require_room()
    opened = await asyncio.gather(*(_open_or_error(context, source) for source in sources.values()))
    return LiveStream(_merge(context, dict(zip(sources, opened, strict=True))), context.stream_clients)


async def _open_or_error(context: Context, source: Source) -> AsyncGenerator[bytes] | TidalError:
    try:
        return await _open(context, source)
    except TidalError as error:
        if error.status >= 500:
            raise
        return error


async def _open(context: Context, source: Source) -> AsyncGenerator[bytes]:
    """The chunks of a stream, once it is known to exist."""
    key, cursor = source.key, source.cursor
    epoch = context.hub.epoch_of(key, cursor) if cursor is not None else None
    first = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    if cursor is None or epoch is None:
        # With a cursor it only tells what does not exist; a cursor in the ring needs no such question.
        snapshot = await context.snapshots.take(key, source.state)
        if cursor is None:
            cursor, epoch = snapshot.position.id, snapshot.position.epoch
            first += encode(format_id(cursor), "snapshot", snapshot.state)
    return _chunks(context, source, cursor, epoch or "", first)


async def _merge(context: Context, opened: Mapping[str, AsyncGenerator[bytes] | TidalError]) -> AsyncGenerator[bytes]:
    """The chunks of all streams as they come; ends when the first of them ends, so that the client connects again."""
    waiting: dict[asyncio.Task[bytes], str] = {}
    following = {name: one for name, one in opened.items() if not isinstance(one, TidalError)}
    current = None

    def wait_for(name: str) -> None:
        waiting[asyncio.create_task(anext(following[name]))] = name

    try:
        for name, error in opened.items():
            if isinstance(error, TidalError):
                yield _topic(name) + encode(None, EVENT_ERROR, json.dumps(error_data(context.paths.hide_in(error))))
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
                # An empty chunk passes: it lets a stream that was silent for long send a comment.
                if chunk and name != current:
                    chunk = _topic(name) + chunk
                    current = name
                yield chunk
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for one in following.values():
            await one.aclose()


def _topic(name: str) -> bytes:
    return encode(None, "topic", json.dumps(name))


async def _chunks(
    context: Context, source: Source, cursor: StreamId, epoch: str, first: bytes
) -> AsyncGenerator[bytes]:
    yield first
    sent = context.metrics.sse_events
    of_entry = attrgetter("brief" if source.brief else "encoded")
    async for batch in context.hub.follow(source.key, cursor, epoch):
        if isinstance(batch, Reset):
            try:
                snapshot = await context.snapshots.take(source.key, source.state)
            except (SQLAlchemyError, TidalError, RedisError) as error:
                # The client connects again with its old cursor and is reset then.
                log.warning("stream closed, no snapshot could be made", stream=source.key, error=str(error))
                return
            yield encode(None, "reset", json.dumps({"reason": batch.reason}))
            yield encode(format_id(batch.position), "snapshot", snapshot.state)
        else:
            sent.inc(len(batch))
            yield b"".join(map(of_entry, batch))
