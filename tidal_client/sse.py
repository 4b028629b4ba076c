"""Server-sent events: reading them, and going on after a broken connection without gap or duplicate.

The position is the id of the last event that was handed out; a new connection sends it as `Last-Event-ID`. When the
server cannot continue there it says `reset` and then `snapshot`, which are handed out like any other event.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource

from .errors import UnavailableError
from .problems import raise_for_problem

FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0


@dataclass(frozen=True)
class Event:
    """One event. `data` is parsed JSON, or the text itself when it is none."""

    name: str
    data: Any
    id: str | None = None
    """The last id that the stream has sent, with this event or with an earlier one."""


def read_events(response: httpx.Response) -> Iterator[Event]:
    """The events of a response, each as soon as it is complete. Events without data are left out, as the standard says
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), and one that is not
    complete when the response ends is dropped. Raises httpx_sse.SSEError for a response that is no stream of events.
    """
    for event in EventSource(response).iter_sse():
        if event.data:
            yield Event(event.event, _value(event.data), event.id or None)


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
                for event in read_events(response):
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
