"""Tokens on their way from the engines to an api: one Redis stream per api process, one entry per step of an engine.

A stream per request costs the engine a command for every token, and the api a connection for every client. So the id
of a request, `<reader>.<number>`, names the api process that reads for it (`keys.generate_stream`), and whatever an
engine has to say to the requests of one reader goes into one entry with the fields `engine`, its name, `number`, which
counts the entries of this engine to this reader from 1, and `events`, lines of `<request id> <event> <JSON>`. What the
events are: `tidal_client.wire.generation_event`.

Redis can lose entries (it was emptied, or crashed before they reached the disk), and an engine that got no answer sends
an entry again. The numbers show both to the reader. Once a second the engine adds a beacon, an entry with the field
`alive` instead of `events`: the ids of the requests that it has, and the number of its last entry, so that a lost last
entry is noticed too.
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
"""Entries that a stream keeps for an api that does not read; one that does trims behind itself."""

PIECE = 16
"""Entries of a list that are encoded in one step."""


class Said(NamedTuple):
    """One event of one request; `data` is JSON in one line."""

    request_id: str
    event: str
    data: str


def new_reader() -> str:
    """The name of an api process as a reader."""
    return f"{READER_ID}{secrets.token_hex(6)}"


def new_request_id(reader: str) -> str:
    """An id whose events `reader` reads."""
    return f"{reader}.{uuid4().hex}"


def error_data(error: TidalError) -> ErrorEvent:
    """What an `error` event carries."""
    return {"code": error.code, "message": error.message, "status": error.status}


def said(request_id: str, event: str, data: GenerationEvent) -> Said:
    """An event from what it carries."""
    # No line break is left in JSON, whatever the text.
    return Said(request_id, event, json.dumps(data, ensure_ascii=False))


def said_in_pieces(request_id: str, event: str, data: GenerationEvent) -> Said:
    """The same for large data, in many small steps: json would keep the interpreter from all other threads."""
    return Said(request_id, event, _in_pieces(data))


def by_stream(events: Iterable[Said]) -> dict[str, list[Said]]:
    """The events by the stream they belong to, in order."""
    streams: dict[str, list[Said]] = {}
    for its in events:
        streams.setdefault(keys.generate_stream(its.request_id), []).append(its)
    return streams


def entry(engine: str, events: Iterable[Said], number: int | None = None) -> dict[FieldT, EncodableT]:
    """The fields of one stream entry; without engine and number where no engine speaks."""
    fields: dict[FieldT, EncodableT] = {ENGINE: engine, EVENTS: "\n".join(map(" ".join, events))}
    if number is not None:
        fields[NUMBER] = number
    return fields


def beacon(engine: str, request_ids: Iterable[str], number: int) -> dict[FieldT, EncodableT]:
    """The fields of a beacon: the requests of the reader that the engine has, and the number of its last entry."""
    return {ENGINE: engine, ALIVE: " ".join(request_ids), NUMBER: number}


def _in_pieces(value: Any) -> str:
    if isinstance(value, Mapping) and any(_is_long(its) for its in value.values()):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_in_pieces(its)}" for key, its in value.items()) + "}"
    if _is_long(value):
        return "[" + ", ".join(map(_in_pieces, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > PIECE


def read_entry(fields: Mapping[str, str]) -> Iterator[Said]:
    """The events of one stream entry; a beacon has none."""
    if EVENTS not in fields:
        return
    for line in fields[EVENTS].split("\n"):
        request_id, event, data = line.split(" ", 2)
        yield Said(request_id, event, data)
