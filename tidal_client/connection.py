"""The base class of `Client`, which sends requests and reads streams over one connection pool.

Every failure raises an exception of `tidal_client.errors`. The calls of the api are in `client`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from httpx_sse import SSEError
from pydantic.alias_generators import to_camel

from .errors import InvalidInputError, TidalError, UnavailableError
from .problems import raise_for_problem, to_error
from .sse import StreamEvent, follow, read_events
from .wire.base import Reply
from .wire.generation_event import EVENT_ERROR

R = TypeVar("R", bound=Reply)

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
GENERATE_SECONDS = 130.0
"""Timeout of a generation in seconds. The server's limit is 120 s, and its error must arrive before this timeout."""
SILENCE_SECONDS = 45.0
"""Read timeout of a stream in seconds. The server sends a comment about every 15 s, so a longer silence means that the
connection is broken."""


class ApiConnection:
    """Sends requests to one api server. `token` is required for every request that changes something."""

    def __init__(self, url: str, token: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"User-Agent": "tidal-client", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection pool."""
        self._http.close()

    def _stream_post(self, path: str, body: Any) -> Iterator[StreamEvent]:
        """Send a POST request and yield the events of its response. Raises the error of an `error` event."""
        request = self._build_request("POST", path, json=body, timeout=GENERATE_SECONDS)
        try:
            with closing(self._http.send(request, stream=True)) as response:
                raise_for_problem(response)
                for event in read_events(response):
                    if event.name == EVENT_ERROR:
                        raise _exception_from_event(event)
                    yield event
        except httpx.TransportError as error:
            raise self._unavailable_error(error) from error

    def _get(self, reply_type: type[R], path: str, /, **query: Any) -> R:
        params = {key: value for key, value in query.items() if value is not None}
        return reply_type.model_validate(self._request("GET", path, params=params).json())

    def _post(self, reply_type: type[R], path: str, body: Any, headers: dict[str, str] | None = None) -> R:
        return reply_type.model_validate(self._request("POST", path, json=body, headers=headers).json())

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        request = self._build_request(method, path, **options)
        try:
            response = self._http.send(request)
        except httpx.TransportError as error:
            raise self._unavailable_error(error) from error
        raise_for_problem(response)
        return response

    def _build_request(self, method: str, path: str, **options: Any) -> httpx.Request:
        """Build a request. Raises InvalidInputError if a value cannot be encoded."""
        try:
            return self._http.build_request(method, path, **options)
        except UnicodeEncodeError:
            raise InvalidInputError("a string in the request is not valid UTF-8; convert it to UTF-8 first") from None
        except ValueError as error:  # the body contains NaN or infinity
            raise InvalidInputError(f"the request cannot be sent: {error}") from error

    def _connect(self, path: str) -> Any:
        """Return a function that takes request headers and opens the stream at `path`."""
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=5.0)

        def connect(headers: dict[str, str]) -> AbstractContextManager[httpx.Response]:
            return self._http.stream("GET", path, headers=headers, timeout=timeout)

        return connect

    def _follow_topic(self, topic: str, *, since: str | None) -> Iterator[StreamEvent]:
        """Yield the events of one topic of `/api/stream`. Raises the error that an `error` event describes."""

        def connect(headers: dict[str, str]) -> AbstractContextManager[httpx.Response]:
            last_id = headers.pop("Last-Event-ID", None)
            query = httpx.QueryParams(topic=f"{topic}@{last_id}" if last_id else topic)
            opened: AbstractContextManager[httpx.Response] = self._connect(f"/api/stream?{query}")(headers)
            return opened

        for event in follow(connect, since=since):
            if event.name == "error":
                raise _exception_from_event(event)
            if event.name != "topic":
                yield event

    def _unavailable_error(self, error: httpx.TransportError) -> TidalError:
        if isinstance(error, SSEError):
            return UnavailableError(f"the reply of {self.url} is not an event stream: {error}")
        if isinstance(error, httpx.ReadTimeout):
            return UnavailableError(f"{self.url} did not reply in time")
        return UnavailableError(f"no api replies at {self.url}; start one with `tidal up`")


def _exception_from_event(event: StreamEvent) -> TidalError:
    """Return the exception that an `error` event describes."""
    problem = event.data if isinstance(event.data, dict) else {}
    detail = problem.get("message") or problem.get("detail")
    return to_error(int(problem.get("status") or 500), {**problem, "detail": detail})


def request_body(**fields: Any) -> dict[str, Any]:
    """Return a request body: the `fields` that are not None, with camelCase names."""
    return {to_camel(name): value for name, value in fields.items() if value is not None}
