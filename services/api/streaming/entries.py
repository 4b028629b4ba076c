"""Reads the entries of streams from Redis, parses their ids, and encodes them as server-sent events.

An id is a pair of numbers; ids are ordered as in Redis. `hub` decides when to read, and which client gets which entry.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from sse_starlette import ServerSentEvent

from common.redis.keys import EVENT_LOG_LINES

Fields = dict[str, str]
StreamId = tuple[int, int]
ORIGIN: StreamId = (0, 0)
"""A stream id that is less than the id of every entry."""


def parse_id(text: str) -> StreamId:
    """Parse an id such as `1700000000000-3`.

    If the text has no dash and second number, the second number is 0. Raises ValueError.
    """
    first, _, second = text.strip().partition("-")
    parts = first, second or "0"
    if not all(part.isascii() and part.isdecimal() and len(part) <= 20 and int(part) < 2**64 for part in parts):
        raise ValueError(f"'{text[:50]}' is not a stream id; expected digits-digits, as in an event's id line")
    return int(parts[0]), int(parts[1])


def format_id(stream_id: StreamId) -> str:
    """Return the id in the text form of Redis."""
    return f"{stream_id[0]}-{stream_id[1]}"


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of a stream as a server-sent event, encoded once for all clients."""

    id: StreamId
    encoded: bytes
    brief: bytes
    """The event for clients that requested no log lines. For `log-lines`, it is `encoded` without the lines; for all
    other events, it is equal to `encoded`."""


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """A position in a stream.

    `epoch` identifies the Redis data that contains the stream; it changes when Redis is emptied.
    """

    id: StreamId
    epoch: str


def encode_sse(stream_id: str | None, event: str, data: str) -> bytes:
    """Return the bytes of a server-sent event."""
    if "\n" not in data and "\r" not in data:
        # This is the usual case, because JSON has no line breaks. This code is much faster than the general code below.
        # For the event of a generated token, the general code takes as long as all other work of the api.
        head = "" if stream_id is None else f"id: {stream_id}\n"
        return f"{head}event: {event}\ndata: {data}\n\n".encode()
    return ServerSentEvent(data, event=event, id=stream_id, sep="\n").encode()


def entry_of(raw_id: str, fields: Fields) -> StreamEntry:
    """Return the encoded entry for an id and fields from Redis."""
    event, data = fields.get("event", "message"), fields.get("data", "null")
    encoded = encode_sse(raw_id, event, data)
    brief = encode_sse(raw_id, event, _without_lines(data)) if event == EVENT_LOG_LINES else encoded
    return StreamEntry(parse_id(raw_id), encoded, brief)


def _without_lines(data: str) -> str:
    """Return the data of a `log-lines` event without the lines.

    The returned data contains `next`, the number of the line after the removed lines.
    """
    try:
        page = json.loads(data)
        return json.dumps({**page, "lines": [], "next": page["lines"][-1]["n"] + 1})
    except (ValueError, LookupError, TypeError):  # no lines could be found, so there are none to remove
        return data


async def read_after(redis: Redis, key: str, last_id: str, *, count: int, block: int) -> list[tuple[str, Fields]]:
    """Return the entries after `last_id`. If there are none yet, wait up to `block` ms for one. Raises RedisError."""
    reply = cast(list[Any], await redis.xread({key: last_id}, count=count, block=block))
    return cast(list[tuple[str, Fields]], reply[0][1]) if reply else []


async def page_after(redis: Redis, key: str, last_id: str, *, count: int) -> list[tuple[str, Fields]]:
    """Return at most `count` entries after `last_id` without waiting. Raises RedisError."""
    return cast(list[tuple[str, Fields]], await redis.xrange(key, min=f"({last_id}", max="+", count=count))
