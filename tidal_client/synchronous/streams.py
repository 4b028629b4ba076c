"""Reads server-sent events. After a broken connection, a stream resumes without missing or repeated events.

The header `Last-Event-ID` of a new connection contains the id of the last event that was yielded. If the server cannot
resume after this event, it sends the events `reset` and `snapshot`, which are yielded like other events.
"""

# Generated from `tidal_client/asynchronous` by `python -m scripts.sync_client`; change it there.
from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager

import httpx
from httpx_sse import EventSource

from ..errors import UnavailableError
from ..problems import error_of_response
from ..sse import FIRST_DELAY, LONGEST_DELAY, PATIENCE_SECONDS, StreamEvent, stream_event
from .runtime import sleep_for


def read_events(response: httpx.Response) -> Generator[StreamEvent]:
    """Yield the events of a response, each as soon as it is complete.

    Skips events without data, as the standard requires
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), and an event that is
    incomplete when the response ends. Raises httpx_sse.SSEError for a response that is not an event stream.
    """
    for event in EventSource(response).iter_sse():
        if event.data:
            yield stream_event(event)


Connect = Callable[[dict[str, str]], AbstractContextManager[httpx.Response]]
"""A function that takes request headers and opens the stream."""


def follow(
    connect: Connect,
    *,
    since: str | None = None,
    patience: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = sleep_for,
) -> Generator[StreamEvent]:
    """Yield the events after the event id `since`, and reconnect after a broken connection.

    A status 502, 503 or 504 counts as a broken connection; any other error status raises its TidalError. Raises
    UnavailableError if a connection fails when no event has arrived for `patience` seconds.
    """
    delay, deadline = FIRST_DELAY, time.monotonic() + patience
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": since} if since else {})}
        try:
            with connect(headers) as response:
                if response.status_code in (502, 503, 504):
                    raise httpx.ConnectError(f"the server replied with status {response.status_code}")
                if not response.is_success:
                    response.read()
                    raise error_of_response(response)
                for event in read_events(response):
                    delay, deadline = FIRST_DELAY, time.monotonic() + patience
                    since = event.id or since
                    yield event
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the stream was interrupted and could not be resumed: {error}") from error
        sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
