"""Server-sent events: reading them, and going on after a broken connection without gap or duplicate.

The position is the id of the last event that was handed out; a new connection sends it as `Last-Event-ID`. When the
server cannot continue there it says `reset` and then `snapshot`, which are handed out like any other event.
"""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx

from common.client.problems import raise_for_problem
from common.errors import UnavailableError

FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0


_LINE_END = re.compile("\r\n|\r|\n")
"""The only three; `str.splitlines` also ends a line at U+2028, U+2029, U+0085 and more, which are text here."""


@dataclass(frozen=True)
class Event:
    """One event. `data` is parsed JSON, or the text itself when it is none."""

    name: str
    data: Any
    id: str | None = None
    """The last id that the stream has sent, with this event or with an earlier one."""


def parse_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Events from the bytes of a response, however they are cut
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).

    An event that is not complete when the bytes end is dropped.
    """
    name, data, last_id = "", list[str](), None
    for line in _lines(chunks):
        if not line:
            if data:
                yield Event(name or "message", _value("\n".join(data)), last_id)
            name, data = "", []
            continue
        # A line that begins with a colon is a comment: its key is empty.
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif key == "id" and "\0" not in value:
            last_id = value or None


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Complete lines of UTF-8 text, as soon as their end has come. A byte order mark at the start is no text."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    unfinished = list[str]()
    after_return = False
    for chunk in chunks:
        text = decoder.decode(chunk)
        if not text:
            continue
        # The carriage return at the end of the last chunk has ended its line; this is the rest of that line end.
        begin = 1 if after_return and text[0] == "\n" else 0
        after_return = text[-1] == "\r"
        *ended, rest = _LINE_END.split(text[begin:])
        for line in ended:
            yield "".join([*unfinished, line])
            unfinished.clear()
        unfinished.append(rest)


Connect = Callable[[dict[str, str]], AbstractContextManager[httpx.Response]]
"""Opens the stream with these headers."""


def follow(
    connect: Connect, *, since: str | None = None, patience: float = 60.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Event]:
    """Every event after `since`, across broken connections, until the caller stops or the server refuses.

    Raises UnavailableError when no connection succeeds for `patience` seconds, and the error of a problem document
    (but a 503 or 502 counts as a broken connection).
    """
    delay, deadline = FIRST_DELAY, time.monotonic() + patience
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": since} if since else {})}
        try:
            with connect(headers) as response:
                if response.status_code in (502, 503, 504):
                    raise httpx.ConnectError(f"the server answered {response.status_code}")
                raise_for_problem(response)
                for event in parse_events(response.iter_bytes()):
                    delay, deadline = FIRST_DELAY, time.monotonic() + patience
                    since = event.id or since
                    yield event
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the stream broke off and does not come back: {error}") from error
        sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
