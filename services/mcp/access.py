"""Connects tools with the api. The authority of a call is that of its token, and nothing else.

Over stdio, the token is that of the user who started the server. Over HTTP, it is the token in the `Authorization`
header of the request that calls the tool, which is passed on; the server itself has none. Scopes and limits are checked
by the api.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import httpx
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from common.errors import TidalError
from services.mcp.cache import DiskCache
from services.mcp.caching_transport import CachingTransport
from services.mcp.summary import summarize
from tidal_client import AsyncClient

P = ParamSpec("P")
T = TypeVar("T")


class Access:
    """Where the api is, with which token to call it, and the cache. Shared by all tools of a server."""

    def __init__(
        self,
        url: str,
        token: str | None,
        cache: DiskCache | None,
        *,
        from_requests: bool,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self.cache = cache
        self._token = token
        self._from_requests = from_requests
        self._transport = transport or httpx.AsyncHTTPTransport(trust_env=False)

    def client(self, context: Context[Any, Any]) -> AsyncClient:
        """Return a client with the token of this call. It needs no closing: all clients share one transport."""
        token = self._bearer(context) if self._from_requests else self._token
        return AsyncClient(self.url, token, transport=CachingTransport(self._transport, self.cache, token))

    def reply(self, value: dict[str, Any], max_tokens: int, *, hint: str = "") -> str:
        """Return a result as text within the budget, with the problem of the cache if there is one."""
        problem = self.cache.problem if self.cache is not None else None
        return summarize({**value, "cacheProblem": problem} if problem else value, max_tokens, hint=hint)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _bearer(self, context: Context[Any, Any]) -> str | None:
        request = context.request_context.request
        header = request.headers.get("authorization", "") if request is not None else ""
        scheme, _, token = header.partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


def reports_errors(tool: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return the tool with errors that the caller can read: code, message and the wrong values of a TidalError."""

    @functools.wraps(tool)
    async def call(*arguments: P.args, **keywords: P.kwargs) -> T:
        try:
            return await tool(*arguments, **keywords)
        except TidalError as error:
            findings = "".join(f"\n- {each.get('location')}: {each.get('message')}" for each in error.errors[:20])
            raise ToolError(f"{error.code}: {error.message}{findings}") from error
        except LookupError as error:
            raise ToolError(str(error.args[0] if error.args else error)) from error

    return call
