"""Two plain ASGI layers around everything: `RequestContext` and `BodyLimit`.

`RequestContext` gives each request an id (header `X-Request-ID`, taken over from the client when it looks like one;
not with files that are kept for ever), adds what the route left in `request.state.reply_headers` to whatever reply
comes of it, binds it to the log, counts and times the request, turns an unexpected exception into a problem document
and rewrites any error body that is none (the framework's own, `FileResponse`). `BodyLimit` refuses large bodies with
413, except where a route reads the body as a stream and has a limit of its own. Both are plain ASGI: the framework's
decorator form would buffer streams.
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
"""Cache-Control of files whose address changes with their content."""
MIB = 1024 * 1024
MAX_HELD_BYTES = 64 * MIB
"""Most bytes of all request bodies together, not counting the first 32 KiB of each. A body stays in memory until it is
complete."""
SMALL_BYTES = 32 * 1024
"""A body of at most this size is always accepted, so that clients with large bodies cannot block jobs and prompts."""
_TOO_MANY_BODIES = "the api holds too many large request bodies in memory; try again later"


class RequestContext:
    """Request id, log context, metrics, and the last net for errors."""

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
                    raise  # the reply is half out: only closing the connection tells the client
                body = problem(
                    500,
                    f"internal error; the log has it under request id {request_id}",
                    code="internal",
                    request_id=request_id,
                )
                await body(scope, receive, reply.send)
            finally:
                await reply.flush(scope, receive)
                path = _template(scope)
                self.metrics.observe(scope["method"], path, reply.status or 499, time.perf_counter() - started)


class _Reply:
    """Passes messages on, stamps the request id and holds back error bodies that are no problem documents."""

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
            if headers.get("cache-control") != CACHE_FOREVER:  # the id of one request, read by others for a year
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
        """Send what was held back, as a problem document, or under /v1 as an error of OpenAI's shape."""
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
        # "prompt.str" names the variant that did not fit as well.
        param = next((place[0] for place, _ in errors if place != ["body"]), None)
        if status == 422 and errors:
            message = "; ".join(f"{place[0]}: {text.removeprefix(f'{place[0]}: ')}" for place, text in errors[:3])
        # OpenAI's clients know 400, not 422.
        status = 400 if status == 422 else status
        kept = {k: v for k, v in held.items() if k not in ("content-type", "content-length", "x-request-id")}
        return ErrorResponse(error_body(status, message, code=found.get("code"), param=param), status, kept)


class BodyTooLarge(HTTPException):
    """More bytes than allowed; an HTTPException because the framework passes those through its body parser."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes ({limit / MIB:g} MiB)")


class BodyLimit:
    """Refuses bodies over `limit` bytes, by Content-Length before reading and by count while reading.

    While large bodies occupy 64 MiB of memory in total, requests with further large bodies get 503.

    `streams` are the (method, path) of routes that take any amount.
    """

    def __init__(self, app: ASGIApp, limit: int = MIB, streams: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.app = app
        self.limit = limit
        self.streams = streams
        self.held = 0
        """Bytes of the bodies of all current requests, not counting the first `SMALL_BYTES` of each."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], _path(scope)) in self.streams:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self.limit:
            if headers.get("expect", "").lower() != "100-continue":
                await self._discard(receive)
            refusal = BodyTooLarge(self.limit)
            request_id = scope.get("state", {}).get("request_id")
            reply = problem(413, str(refusal.detail), headers={"Connection": "close"}, request_id=request_id)
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
        """Read up to 8 limits, so that a client that writes before it reads sees the reply and not a reset."""
        seen = 0
        while seen < 8 * self.limit:
            message = await receive()
            seen += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return


def _path(scope: Scope) -> str:
    """Below the prefix of a proxy, if there is one."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _template(scope: Scope) -> str:
    """The route's pattern (`/api/jobs/{job_id}`), so that metrics do not grow with ids."""
    path = getattr(scope.get("route"), "path", None)
    return str(path) if path else "(none)"
