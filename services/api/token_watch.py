"""Ends the requests and streams of a named token when the token is revoked or expires.

`EndWithToken` runs each request in a cancel scope. `auth` registers the request with the `TokenRegister` once it knows
the token, and the register ends the request when the token is no longer valid. Generations then cancel their work in
the engine, and uploads remove their files, as after any other error. A change that runs in a thread is completed
first. A client whose reply has not begun gets 401; an event stream ends with an `error` event; a download is cut off.
"""

from __future__ import annotations

import json

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import TidalError
from common.logging import get_logger
from common.redis.generation_events import error_data
from services.api.errors import from_tidal_error
from services.api.schemas.completions import error_body
from services.api.streaming.entries import encode_sse
from services.api.token_register import RunningRequest, TokenRegister
from tidal_client.wire.generation_event import EVENT_ERROR

SEND_SECONDS = 0.2
"""Time for sending the last event of a stream. A client that does not read would otherwise keep its stream open."""
STATE = "running_request"
"""Key of the RunningRequest in the state of a request."""

log = get_logger(__name__)


class EndWithToken:
    """Middleware that makes it possible to end a request from another task."""

    def __init__(self, app: ASGIApp, tokens: TokenRegister) -> None:
        self.app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        running = scope.setdefault("state", {})[STATE] = RunningRequest()
        started: Headers | None = None
        complete = False

        async def record(message: Message) -> None:
            nonlocal started, complete
            if message["type"] == "http.response.start":
                started = Headers(raw=message["headers"])
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        try:
            with running.cancel_scope:
                await self.app(scope, receive, record)
        finally:
            self._tokens.release(running)
        if not running.cancel_scope.cancelled_caught or running.error is None or complete:
            return
        log.info("a request was ended with its token", path=_template(scope), code=running.error.code)
        if started is None:
            reply = from_tidal_error(running.error, request_id=scope["state"].get("request_id"))
            reply.headers["Connection"] = "close"
            await reply(scope, receive, send)
        elif started.get("content-type", "").startswith("text/event-stream"):
            openai = str(scope["path"]).removeprefix(scope.get("root_path", "")).startswith("/v1/")
            with anyio.move_on_after(SEND_SECONDS):
                last = _last_event(running.error, openai=openai)
                await send({"type": "http.response.body", "body": last, "more_body": False})


def _last_event(error: TidalError, *, openai: bool) -> bytes:
    if openai:
        body = error_body(error.status, error.message, code=error.code, param=None)
        return f"data: {json.dumps(body)}\n\n".encode()
    return encode_sse(None, EVENT_ERROR, json.dumps(error_data(error)))


def _template(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", ""))
