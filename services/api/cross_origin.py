"""Cross-origin requests (CORS): web pages of the origins in `TIDAL_ALLOWED_ORIGINS` may use the whole api.

Pages send the token in `Authorization`; cookies are neither used nor allowed. A reply to any other origin has no CORS
headers; the browser therefore hides it from the page.
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
"""Reply headers that a page may read, in addition to those that browsers always allow."""


class CrossOrigin(CORSMiddleware):
    """CORS middleware. It is the outermost layer, because pages must be able to read the errors of all other layers."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"),
            # Any header is allowed, because clients add their own: OpenAI's client, for example, adds X-Stainless-*.
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=READABLE_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.is_allowed_origin(Headers(scope=scope).get("origin", "")):
            # Handle the request as if it had no `Origin`. The reply then has no CORS headers except `Vary: Origin`.
            others = [(name, value) for name, value in scope["headers"] if name != b"origin"]
            scope = {**scope, "headers": others}
        await super().__call__(scope, receive, send)
