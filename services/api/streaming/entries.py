"""One entry of a stream: its id, how it is read from Redis, and how it goes over the wire.

Ids are pairs of numbers, which compare as Redis compares them. Leaves out: who reads when, and who gets what (`hub`).
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
"""Before every entry."""


def parse_id(text: str) -> StreamId:
    """`1700000000000-3` as numbers; the part after the dash may be missing. ValueError when it is no stream id."""
    first, _, second = text.strip().partition("-")
    parts = first, second or "0"
    if not all(part.isascii() and part.isdecimal() and len(part) <= 20 and int(part) < 2**64 for part in parts):
        raise ValueError(f"'{text[:50]}' is no stream id; expected digits-digits, as in an event's id line")
    return int(parts[0]), int(parts[1])


def format_id(stream_id: StreamId) -> str:
    """The text form Redis uses."""
    return f"{stream_id[0]}-{stream_id[1]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream, as it goes over the wire; encoded once for all clients."""

    id: StreamId
    encoded: bytes
    brief: bytes
    """The same for clients that do not want the lines of a log, only how far it is."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream, and the life of the Redis data it belongs to."""

    id: StreamId
    epoch: str


def encode(stream_id: str | None, event: str, data: str) -> bytes:
    """One event on the wire."""
    if "\n" not in data and "\r" not in data:
        # JSON has no line breaks; the general way costs as much as all the rest of a token.
        head = "" if stream_id is None else f"id: {stream_id}\n"
        return f"{head}event: {event}\ndata: {data}\n\n".encode()
    return ServerSentEvent(data, event=event, id=stream_id, sep="\n").encode()


def entry_of(raw_id: str, fields: Fields) -> Entry:
    """The entry that Redis gave as text."""
    event, data = fields.get("event", "message"), fields.get("data", "null")
    encoded = encode(raw_id, event, data)
    brief = encode(raw_id, event, _without_lines(data)) if event == EVENT_LOG_LINES else encoded
    return Entry(parse_id(raw_id), encoded, brief)


def _without_lines(data: str) -> str:
    """The data of `log-lines` as a position: no lines, and in `next` the number of the line that comes after them."""
    try:
        told = json.loads(data)
        return json.dumps({**told, "lines": [], "next": told["lines"][-1]["n"] + 1})
    except (ValueError, LookupError, TypeError):  # it has no lines that could be left out
        return data


async def read_after(redis: Redis, key: str, last_id: str, *, count: int, block: int) -> list[tuple[str, Fields]]:
    """What follows `last_id`, waiting up to `block` ms for the first entry; empty when none came. RedisError."""
    reply = cast(list[Any], await redis.xread({key: last_id}, count=count, block=block))
    return cast(list[tuple[str, Fields]], reply[0][1]) if reply else []


async def page_after(redis: Redis, key: str, last_id: str, *, count: int) -> list[tuple[str, Fields]]:
    """What follows `last_id` at once, at most `count` entries. RedisError."""
    return cast(list[tuple[str, Fields]], await redis.xrange(key, min=f"({last_id}", max="+", count=count))
