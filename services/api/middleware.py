"""Two ASGI middlewares around all routes: `RequestContext` and `BodyLimit`.

`RequestContext`

* gives each request an id, adds the id to log lines and returns it as `X-Request-ID`. If the client sends a valid id,
  that id is used. Replies that caches may store for ever have no id;
* adds the headers in `request.state.reply_headers` to the reply, even if it is an error;
* counts and times the request;
* converts unexpected exceptions to problem documents; it also converts error bodies in other formats, for example those
  of `FileResponse`.

`BodyLimit` answers 413 to a large body, unless the route reads the body as a stream and has a limit of its own. Both
middlewares are plain ASGI, because Starlette's `BaseHTTPMiddleware` would buffer streams.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.logging import get_logger
from services.api.errors import MAX_ERROR_BYTES, ErrorResponse, problem
from services.api.http_metrics import HttpMetrics
from services.api.schemas.completions import error_body
from services.api.schemas.problems import PROBLEM_TYPE

log = get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CACHE_FOREVER = "public, max-age=31536000, immutable"
"""`Cache-Control` of files whose URL changes with their content."""
MIB = 1024 * 1024
MAX_HELD_BYTES = 64 * MIB
"""Maximum size of all current request bodies together, not counting the first 32 KiB of each. A body stays in memory
until its request ends."""
SMALL_BYTES = 32 * 1024
"""A body of at most this size is always accepted. Therefore clients with large bodies cannot block clients with small
ones, such as most requests for jobs and generations."""
_TOO_MANY_BODIES = "the api holds too many large request bodies in memory; try again later"


class RequestContext:
    """Adds the request id, the log context and metrics, and handles unexpected exceptions."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        path = _path(scope)
        reply = _Reply(send, scope["state"], openai=path.startswith("/v1/"))
        with structlog.contextvars.bound_contextvars(request_id=request_id), self.metrics.in_flight():
            try:
                await self.app(scope, receive, reply.send)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if reply.status is not None:
                    raise  # A part of the reply has been sent. The exception closes the connection.
                body = problem(
                    500,
                    f"internal error; the log of the api describes it under request id {request_id}",
                    code="internal",
                    request_id=request_id,
                )
                await body(scope, receive, reply.send)
            finally:
                await reply.flush(scope, receive)
                path = _template(scope)
                self.metrics.observe(scope["method"], path, reply.status or 499, time.perf_counter() - started)


class _Reply:
    """Sends a reply with the request id. Holds back error bodies until `flush` converts them."""

    def __init__(self, send: Send, state: Mapping[str, Any], *, openai: bool) -> None:
        self._send = send
        self._state = state
        self._request_id: str = state["request_id"]
        self._openai = openai
        self._held: Message | None = None
        self._text = b""
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = MutableHeaders(scope=message)
            if headers.get("cache-control") != CACHE_FOREVER:  # a cache would send this id to other clients for a year
                headers["X-Request-ID"] = self._request_id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            for name, value in self._state.get("reply_headers", {}).items():
                headers.setdefault(name, value)
            known = headers.get("content-type", "").startswith(PROBLEM_TYPE)
            if self.status >= 400 and (self._openai or not known):
                self._held = message
                return
        elif self._held is not None:
            if len(self._text) < MAX_ERROR_BYTES:
                self._text += message.get("body", b"")
            return
        await self._send(message)

    async def flush(self, scope: Scope, receive: Receive) -> None:
        """Send the error that was held back: as a problem document, or under /v1 in OpenAI's format."""
        if self._held is None:
            return
        held, self._held = Headers(raw=self._held["headers"]), None
        status = self.status or 500
        if self._openai:
            await self._as_openai(status, held)(scope, receive, self._send)
            return
        detail = self._text.decode("utf-8", "replace").strip() or HTTPStatus(status).phrase
        kept = {k: v for k, v in held.items() if k not in ("content-type", "content-length", "etag", "last-modified")}
        await problem(status, detail, headers=kept, request_id=self._request_id)(scope, receive, self._send)

    def _as_openai(self, status: int, held: Headers) -> ErrorResponse:
        try:
            found = json.loads(self._text)
        except ValueError:
            found = {}
        message = found.get("detail") or self._text.decode("utf-8", "replace").strip() or HTTPStatus(status).phrase
        errors = [
            (item["location"].removeprefix("body.").split("."), item["message"]) for item in found.get("errors", [])
        ]
        # A location such as "prompt.str" also contains the type that did not match, but OpenAI's `param` is only the
        # name of the field.
        param = next((place[0] for place, _ in errors if place != ["body"]), None)
        if status == 422 and errors:
            message = "; ".join(f"{place[0]}: {text.removeprefix(f'{place[0]}: ')}" for place, text in errors[:3])
        # OpenAI's clients expect 400 instead of 422.
        status = 400 if status == 422 else status
        kept = {k: v for k, v in held.items() if k not in ("content-type", "content-length", "x-request-id")}
        return ErrorResponse(error_body(status, message, code=found.get("code"), param=param), status, kept)


class BodyTooLarge(HTTPException):
    """Raised when a body is too large.

    It is an HTTPException, because FastAPI's body parser replaces every other exception.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes ({limit / MIB:g} MiB)")


class BodyLimit:
    """Answers 413 to bodies over `limit` bytes.

    Content-Length is checked before reading, and the number of received bytes while reading. While large bodies occupy
    64 MiB of memory in total, requests with further large bodies get 503. `streams` contains (method, path) of the
    routes that are not limited here.
    """

    def __init__(self, app: ASGIApp, limit: int = MIB, streams: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.app = app
        self.limit = limit
        self.streams = streams
        self.held = 0
        """Number of bytes in the bodies of all current requests, not counting the first `SMALL_BYTES` of each."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], _path(scope)) in self.streams:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self.limit:
            if headers.get("expect", "").lower() != "100-continue":
                await self._discard(receive)
            unknown_host_message = BodyTooLarge(self.limit)
            request_id = scope.get("state", {}).get("request_id")
            reply = problem(
                413, str(unknown_host_message.detail), headers={"Connection": "close"}, request_id=request_id
            )
            await reply(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                before = max(0, seen - SMALL_BYTES)
                seen += len(message.get("body", b""))
                self.held += max(0, seen - SMALL_BYTES) - before
                if seen > self.limit:
                    raise BodyTooLarge(self.limit)
                if self.held > MAX_HELD_BYTES and seen > SMALL_BYTES:
                    raise HTTPException(503, _TOO_MANY_BODIES, headers={"Connection": "close", "Retry-After": "5"})
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held -= max(0, seen - SMALL_BYTES)

    async def _discard(self, receive: Receive) -> None:
        """Read and discard the rest of a body that is too large, at most eight times the limit.

        A client that sends its whole body before it reads anything then receives the reply. Otherwise the client would
        see a connection reset.
        """
        seen = 0
        while seen < 8 * self.limit:
            message = await receive()
            seen += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return


def _path(scope: Scope) -> str:
    """Return the path of the request without the prefix that a proxy adds."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _template(scope: Scope) -> str:
    """Return the path pattern of the route (`/api/jobs/{job_id}`).

    The metrics use the pattern as a label. With the path itself, every id would become a label value.
    """
    path = getattr(scope.get("route"), "path", None)
    return str(path) if path else "(none)"
