"""The base class of `AsyncClient`, which sends requests and reads streams over one connection pool.

Every failure raises an exception of `tidal_client.errors`. `retries` decides which requests are sent again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from ..errors import InvalidInputError
from ..problems import error_of_event, error_of_response
from ..requests import (
    GENERATE_SECONDS,
    SILENCE_SECONDS,
    TIMEOUT,
    page_size,
    request_headers,
    topics_query,
    unavailable_error,
    without_none,
)
from ..retries import DEFAULT_RETRIES, seconds_after_error, seconds_after_reply
from ..server import find_server
from ..sse import StreamEvent
from ..wire.generation_event import EVENT_ERROR
from .runtime import async_sleep_for
from .streams import AsyncConnect, async_follow, async_read_events

R = TypeVar("R", bound=BaseModel)
P = TypeVar("P", bound=BaseModel)
T = TypeVar("T")
_NOT_EVENTS = ("topic", "reset", EVENT_ERROR)
"""Events of `/api/stream` that have no position in a stream."""


class AsyncApiConnection:
    """Sends requests to one api server.

    Without `url`, `server.find_server` looks for the server and its token. A token is required for every request that
    changes something. A request that fails for a passing reason is sent again up to `retries` times.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if url is None:
            url, token = find_server(None, token)
        self.url = url.rstrip("/")
        self.retries = retries
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=request_headers(token), timeout=TIMEOUT, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection pool."""
        await self._http.aclose()

    async def _get(self, reply_type: type[R], path: str, /, **query: Any) -> R:
        return reply_type.model_validate_json((await self._request("GET", path, params=without_none(query))).content)

    async def _post(
        self,
        reply_type: type[R],
        path: str,
        body: Any,
        *,
        repeatable: bool = False,
        timeout: float | httpx.Timeout = TIMEOUT,
        **options: Any,
    ) -> R:
        reply = await self._request("POST", path, json=body, repeatable=repeatable, timeout=timeout, **options)
        return reply_type.model_validate_json(reply.content)

    async def _pages(
        self,
        reply_type: type[P],
        path: str,
        entries: Callable[[P], list[T]],
        /,
        *,
        limit: int | None,
        size: int | None = None,
        **query: Any,
    ) -> list[T]:
        """Return the entries of as many pages of a list as `limit` needs; of all pages if it is None.

        `size` is the number of entries per page, if it is not the usual one.
        """
        found: list[T] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            page = await self._get(reply_type, path, limit=size or page_size(limit, len(found)), cursor=cursor, **query)
            found += entries(page)
            cursor = getattr(page, "next_cursor", None)
            if cursor is None:
                break
        return found[:limit]

    async def _request(self, method: str, path: str, *, repeatable: bool = False, **options: Any) -> httpx.Response:
        """Send a request and return the reply. Raises the TidalError that a failed reply describes."""
        request = self._build_request(method, path, **options)
        response = await self._send(request, repeatable=repeatable or method == "GET")
        if not response.is_success:
            raise error_of_response(response)
        return response

    async def _send(self, request: httpx.Request, *, repeatable: bool, stream: bool = False) -> httpx.Response:
        """Send a request, again if `retries` allows it, and return the last reply, even if it is an error."""
        can_resend = isinstance(request.stream, httpx.ByteStream)  # a body that is read from a file is consumed
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            try:
                response = await self._http.send(request, stream=stream)
            except httpx.TransportError as error:
                wait = seconds_after_error(error, attempt, repeatable=repeatable)
                if last or wait is None:
                    raise unavailable_error(self.url, error) from error
            else:
                wait = seconds_after_reply(response, attempt, repeatable=repeatable)
                if last or wait is None or not can_resend:
                    return response
                await response.aclose()
            await async_sleep_for(wait)
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def _streamed(self, request: httpx.Request, *, repeatable: bool) -> AsyncIterator[httpx.Response]:
        """Send a request and open its reply. Raises the TidalError of a failed reply and of a broken connection."""
        response = await self._send(request, repeatable=repeatable, stream=True)
        try:
            async with aclosing(response):
                if not response.is_success:
                    await response.aread()
                    raise error_of_response(response)
                yield response
        except httpx.TransportError as error:
            raise unavailable_error(self.url, error) from error

    async def _stream_post(self, path: str, body: Any) -> AsyncGenerator[StreamEvent]:
        """Send a POST request and yield the events of its reply. Raises the error of an `error` event."""
        request = self._build_request("POST", path, json=body, timeout=GENERATE_SECONDS)
        async with self._streamed(request, repeatable=False) as response:
            async for event in async_read_events(response):
                if event.name == EVENT_ERROR:
                    raise error_of_event(event)
                yield event

    def _build_request(self, method: str, path: str, **options: Any) -> httpx.Request:
        """Build a request. Raises InvalidInputError if a value cannot be encoded."""
        try:
            return self._http.build_request(method, path, **options)
        except UnicodeEncodeError:
            raise InvalidInputError("a string in the request is not valid UTF-8; convert it to UTF-8 first") from None
        except ValueError as error:  # the body contains NaN or infinity
            raise InvalidInputError(f"the request cannot be sent: {error}") from error

    def _connect(self, path: str) -> AsyncConnect:
        """Return a function that takes request headers and opens the stream at `path`."""
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=5.0)

        def connect(headers: dict[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
            return self._http.stream("GET", path, headers=headers, timeout=timeout)

        return connect

    async def _follow_topics(
        self, topics: Iterable[str], since: Mapping[str, str | None] | None = None
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the events of several streams over one connection, and continue each after its last event.

        A stream that does not exist yields one `error` event and is left out of the next connection. Ends if none is
        left.
        """
        wanted = list(dict.fromkeys(topics))
        positions: dict[str, str | None] = dict(since or {})
        topic = wanted[0]

        def connect(headers: dict[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
            headers.pop("Last-Event-ID", None)
            return self._connect(f"/api/stream?{topics_query(wanted, positions)}")(headers)

        async with aclosing(async_follow(connect)) as events:
            async for event in events:
                if event.name == "topic":
                    topic = str(event.data)
                    continue
                if event.name not in _NOT_EVENTS:
                    positions[topic] = event.id or positions.get(topic)
                yield StreamEvent(event.name, event.data, positions.get(topic), topic)
                if event.name == EVENT_ERROR:
                    wanted.remove(topic)
                    if not wanted:
                        return
