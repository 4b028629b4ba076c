"""Requests under a name that this api does not answer to get 421, so that no page elsewhere reads it by DNS rebinding.

Which names those are: `common.access.hosts`. Health endpoints answer under any name, because load balancers and
container checks ask by whatever name they have, and the replies hold nothing. Plain ASGI, before any route.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access import KnownHosts
from common.access.hosts import refusal
from services.api.errors import problem

EXEMPT = ("/healthz", "/readyz")
CODE = "unknown_host"


class HostCheck:
    """Lets requests through whose every `Host` is known."""

    def __init__(self, app: ASGIApp, hosts: KnownHosts) -> None:
        self.app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._exempt(scope):
            unknown = next((host for host in Headers(scope=scope).getlist("host") if not self._hosts.knows(host)), None)
            if unknown is not None:
                request_id = scope.get("state", {}).get("request_id")
                await problem(421, refusal(unknown), code=CODE, request_id=request_id)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    @staticmethod
    def _exempt(scope: Scope) -> bool:
        path = str(scope["path"])
        return path in EXEMPT or path.removeprefix(scope.get("root_path", "")) in EXEMPT
