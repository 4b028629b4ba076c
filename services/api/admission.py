"""A plain ASGI layer: 503 for requests beyond as many as may run at once, health checks excepted.

Leaves out: connections (`connections`), and the share that streams may have (`stream_clients`).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.errors import problem

HEALTH = frozenset({"/healthz", "/readyz"})
"""Always answered: from connections kept in reserve."""


class Admission:
    """Counts running requests, and refuses those beyond `limit`."""

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
                f"all {self.limit} connections are in use; try again (TIDAL_MAX_CONNECTIONS, or the descriptor limit)",
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
