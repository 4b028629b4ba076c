"""Encodes the events of generations for Redis, with one stream per api process and one entry per step of an engine.

With a stream per request, the engine would need one command per token, and the api one connection per client. Instead,
the id of a request, `<reader>.<number>`, names the api process that reads its events (the reader), and thus the
reader's stream (`keys.generate_stream`). An engine sends all events for the requests of one reader in one entry with
three fields: `engine` is the name of the engine, `number` counts the entries of this engine for this reader from 1, and
`events` holds lines of `<request id> <event> <JSON>`. `tidal_client.wire.generation_event` defines the events.

Redis can lose entries (it was emptied, or crashed before they reached the disk), and an engine that received no answer
sends an entry again. The numbers show the reader which entries are missing or repeated. Once a second the engine adds a
beacon: an entry with the field `alive` instead of `events`, which holds the ids of the engine's active requests. The
beacon repeats the `number` of the last entry, so that the reader also notices when that entry was lost.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from redis.typing import EncodableT, FieldT

from common.errors import TidalError
from common.redis import keys
from tidal_client.vocabulary import READER_ID
from tidal_client.wire.generation_event import ErrorEvent, GenerationEvent

ENGINE = "engine"
EVENTS = "events"
NUMBER = "number"
ALIVE = "alive"
MAX_ENTRIES = 4096
"""Largest number of entries in a stream. It is reached only if the api process does not read and delete them."""

PIECE = 16
"""Lists with more items than this limit are encoded item by item."""


class EncodedEvent(NamedTuple):
    """One encoded event of one request; `data` is JSON on one line."""

    request_id: str
    event: str
    data: str


def new_reader() -> str:
    """Return a new name for an api process that reads events."""
    return f"{READER_ID}{secrets.token_hex(6)}"


def new_request_id(reader: str) -> str:
    """Return a new request id whose events are sent to `reader`."""
    return f"{reader}.{uuid4().hex}"


def error_data(error: TidalError) -> ErrorEvent:
    """Return the data of an `error` event."""
    return {"code": error.code, "message": error.message, "status": error.status}


def encode_generation_event(request_id: str, event: str, data: GenerationEvent) -> EncodedEvent:
    """Encode an event."""
    # JSON escapes line breaks, so the result is always one line.
    return EncodedEvent(request_id, event, json.dumps(data, ensure_ascii=False))


def encode_large_generation_event(request_id: str, event: str, data: GenerationEvent) -> EncodedEvent:
    """Encode an event with large data in small steps, because a single `json.dumps` would block all other threads."""
    return EncodedEvent(request_id, event, _in_pieces(data))


def by_stream(events: Iterable[EncodedEvent]) -> dict[str, list[EncodedEvent]]:
    """Return {stream: its events}, in the given order."""
    streams: dict[str, list[EncodedEvent]] = {}
    for event in events:
        streams.setdefault(keys.generate_stream(event.request_id), []).append(event)
    return streams


def entry(engine: str, events: Iterable[EncodedEvent], number: int | None = None) -> dict[FieldT, EncodableT]:
    """Return the fields of one stream entry. If the sender is not an engine, `engine` is "" and `number` is None."""
    fields: dict[FieldT, EncodableT] = {ENGINE: engine, EVENTS: "\n".join(map(" ".join, events))}
    if number is not None:
        fields[NUMBER] = number
    return fields


def beacon(engine: str, request_ids: Iterable[str], number: int) -> dict[FieldT, EncodableT]:
    """Return the fields of a beacon: the active requests of the reader, and the number of the engine's last entry."""
    return {ENGINE: engine, ALIVE: " ".join(request_ids), NUMBER: number}


def _in_pieces(value: Any) -> str:
    if isinstance(value, Mapping) and any(_is_long(item) for item in value.values()):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_in_pieces(item)}" for key, item in value.items()) + "}"
    if _is_long(value):
        return "[" + ", ".join(map(_in_pieces, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > PIECE


def read_entry(fields: Mapping[str, str]) -> Iterator[EncodedEvent]:
    """Yield the events of one stream entry; a beacon has none."""
    if EVENTS not in fields:
        return
    for line in fields[EVENTS].split("\n"):
        request_id, event, data = line.split(" ", 2)
        yield EncodedEvent(request_id, event, data)
