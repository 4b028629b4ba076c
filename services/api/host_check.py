"""ASGI middleware that answers 421 to a request with an unknown `Host`, to prevent DNS rebinding.

`common.access.hosts` defines the known names. Health endpoints accept any name, because load balancers and container
checks use various names, and the replies of health endpoints contain nothing private.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from common.access import KnownHosts
from common.access.hosts import unknown_host_message
from services.api.errors import problem

EXEMPT = ("/healthz", "/readyz")
"""Paths that accept any `Host`."""
CODE = "unknown_host"


class HostCheck:
    """Passes a request on only if every `Host` header of the request contains a known name."""

    def __init__(self, app: ASGIApp, hosts: KnownHosts) -> None:
        self.app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._exempt(scope):
            unknown = next((host for host in Headers(scope=scope).getlist("host") if not self._hosts.knows(host)), None)
            if unknown is not None:
                request_id = scope.get("state", {}).get("request_id")
                reply = problem(421, unknown_host_message(unknown), code=CODE, request_id=request_id)
                await reply(scope, receive, send)
                return
        await self.app(scope, receive, send)

    @staticmethod
    def _exempt(scope: Scope) -> bool:
        path = str(scope["path"])
        return path in EXEMPT or path.removeprefix(scope.get("root_path", "")) in EXEMPT
