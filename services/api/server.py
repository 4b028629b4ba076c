"""uvicorn around the app: limits on connections, and streams end first on SIGTERM, then open requests have 20 s.

Leaves out: TLS and several processes; put a proxy in front, start more processes behind it.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import constants
from functools import partial
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from common.config import Settings
from common.logging import get_logger
from services.api.connections import Connections
from services.api.context import Context
from services.api.http_connection import HttpConnection, Patience

log = get_logger(__name__)

GRACEFUL_SHUTDOWN_SECONDS = 20
BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted; its own limit (net.core.somaxconn) may be less."""
ACCEPTED_AT_ONCE = 8
"""Per turn of the event loop. What was accepted is counted two turns later, so the count lags behind by that much."""
ACCEPT_AGAIN_SECONDS = 0.05
"""After a connection that could not be accepted for want of a descriptor."""


class Server(uvicorn.Server):
    """A uvicorn server that keeps its connections in bounds, and closes the stream hub before it waits for them."""

    def __init__(self, config: uvicorn.Config, context: Context, connections: Connections) -> None:
        super().__init__(config)
        self._context = context
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, a few per turn."""
        await super().startup(sockets)
        # asyncio takes one number for both: what it accepts at once, and what the kernel keeps.
        for listener in sockets or []:
            listener.listen(BACKLOG)
        asyncio.get_running_loop().set_exception_handler(self._on_trouble)
        # asyncio waits a second before it accepts again; health checks would wait as long.
        setattr(constants, "ACCEPT_RETRY_DELAY", ACCEPT_AGAIN_SECONDS)  # noqa: B010 (a constant to type checkers)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self._connections.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every stream, then let uvicorn drain."""
        self._connections.draining = True
        self._context.generations.drain()
        await self._context.hub.close()
        await super().shutdown(sockets)

    def _on_trouble(self, loop: asyncio.AbstractEventLoop, trouble: dict[str, Any]) -> None:
        """A connection that could not be accepted is an ordinary event; asyncio would write a traceback each time."""
        if "out of system resource" in trouble.get("message", ""):
            log.warning(
                "no descriptor is left for a new connection; idle ones are closed", error=str(trouble["exception"])
            )
            self._connections.free_descriptors()
        else:
            loop.default_exception_handler(trouble)


def make_server(app: FastAPI, settings: Settings) -> Server:
    """The server for `settings.host` and `settings.port`; it runs with `.run()` or `await .serve()`."""
    context: Context = app.state.context
    connections = Connections(context.limits, context.metrics)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # A function that makes one, as uvicorn calls it; its type says class.
        http=cast(type[asyncio.Protocol], partial(HttpConnection, connections, Patience.of(settings))),
        log_config=None,
        log_level="warning",  # its progress in four lines is one of ours, `listening`
        access_log=False,
        backlog=ACCEPTED_AT_ONCE,
        proxy_headers=bool(settings.trusted_proxies.strip()),
        forwarded_allow_ips=settings.trusted_proxies or None,
        server_header=False,
        timeout_keep_alive=cast(int, settings.keep_alive_seconds),  # only ever a delay of the event loop
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
    )
    return Server(config, context, connections)
