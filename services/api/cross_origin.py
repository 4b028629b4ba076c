"""Requests of web pages from other origins (CORS): the origins of `TIDAL_ALLOWED_ORIGINS` may make any, others none.

Everything may be asked and read with the token in `Authorization`; cookies are not used, so none are allowed. Pages of
other origins get no such header, on preflights neither, and their browsers refuse them the reply.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

READABLE_HEADERS = (
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-Request-ID",
)
"""What a page may read of a reply, beside what browsers always allow."""


class CrossOrigin(CORSMiddleware):
    """The outermost layer, so that errors of every other layer can be read as well."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"),
            allow_headers=("*",),  # clients send their own, such as the X-Stainless ones of OpenAI's
            allow_private_network=True,
            expose_headers=READABLE_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.is_allowed_origin(Headers(scope=scope).get("origin", "")):
            # Like a request without an origin: the reply says only that it depends on it.
            others = [(name, value) for name, value in scope["headers"] if name != b"origin"]
            scope = {**scope, "headers": others}
        await super().__call__(scope, receive, send)
