"""Reads server-sent events. After a broken connection, a stream resumes without missing or repeated events.

The header `Last-Event-ID` of a new connection contains the id of the last event that was yielded. If the server cannot
resume after this event, it sends the events `reset` and `snapshot`, which are yielded like other events.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import httpx
from httpx_sse import EventSource

from ..errors import UnavailableError
from ..problems import error_of_response
from ..sse import FIRST_DELAY, LONGEST_DELAY, PATIENCE_SECONDS, StreamEvent, stream_event
from .runtime import async_sleep_for


async def async_read_events(response: httpx.Response) -> AsyncGenerator[StreamEvent]:
    """Yield the events of a response, each as soon as it is complete.

    Skips events without data, as the standard requires
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), and an event that is
    incomplete when the response ends. Raises httpx_sse.SSEError for a response that is not an event stream.
    """
    async for event in EventSource(response).aiter_sse():
        if event.data:
            yield stream_event(event)


AsyncConnect = Callable[[dict[str, str]], AbstractAsyncContextManager[httpx.Response]]
"""A function that takes request headers and opens the stream."""


async def async_follow(
    connect: AsyncConnect,
    *,
    since: str | None = None,
    patience: float = PATIENCE_SECONDS,
    sleep: Callable[[float], Awaitable[None]] = async_sleep_for,
) -> AsyncGenerator[StreamEvent]:
    """Yield the events after the event id `since`, and reconnect after a broken connection.

    A status 502, 503 or 504 counts as a broken connection; any other error status raises its TidalError. Raises
    UnavailableError if a connection fails when no event has arrived for `patience` seconds.
    """
    delay, deadline = FIRST_DELAY, time.monotonic() + patience
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": since} if since else {})}
        try:
            async with connect(headers) as response:
                if response.status_code in (502, 503, 504):
                    raise httpx.ConnectError(f"the server replied with status {response.status_code}")
                if not response.is_success:
                    await response.aread()
                    raise error_of_response(response)
                async for event in async_read_events(response):
                    delay, deadline = FIRST_DELAY, time.monotonic() + patience
                    since = event.id or since
                    yield event
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the stream was interrupted and could not be resumed: {error}") from error
        await sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
