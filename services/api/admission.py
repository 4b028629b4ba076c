"""ASGI middleware that answers 503 to requests above the limit on concurrent requests.

Health checks are exempt. `connections` limits the number of connections, and `streaming.clients` the number of streams.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.errors import problem

HEALTH = frozenset({"/healthz", "/readyz"})
"""Paths that are answered even at the limit. A client can still connect to request them, because `connections` reserves
connections above the limit."""


class Admission:
    """Counts running requests and answers 503 to any request above `limit`."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")) in HEALTH:
            await self.app(scope, receive, send)
            return
        if self.running >= self.limit:
            reply = problem(
                503,
                f"{self.limit} requests are running, the maximum; try again later, or raise TIDAL_MAX_CONNECTIONS or "
                "the limit on file descriptors",
                code="too_many_connections",
                headers={"Connection": "close", "Retry-After": "5"},
                request_id=scope.get("state", {}).get("request_id"),
            )
            await reply(scope, receive, send)
            return
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1
