"""Runs the app in uvicorn, with limits on connections.

On SIGTERM, the server ends the streams; open requests then have 20 s to finish. For TLS or several api processes, put a
proxy in front of the server.
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
from services.api.http_connection import HttpConnection, RequestTimeLimits

log = get_logger(__name__)

GRACEFUL_SHUTDOWN_SECONDS = 20
BACKLOG = 4096
"""Number of connections that the kernel queues until they are accepted. net.core.somaxconn may reduce it."""
ACCEPTED_AT_ONCE = 8
"""Maximum number of connections accepted per iteration of the event loop. `Connections` counts them only two iterations
later; with a larger number, the process could exceed its limit on file descriptors."""
ACCEPT_AGAIN_SECONDS = 0.05
"""Seconds to wait before accepting again, after no file descriptor was free for a connection."""


class ApiServer(uvicorn.Server):
    """A uvicorn server that limits its connections, and ends all streams before it waits for open requests."""

    def __init__(self, config: uvicorn.Config, context: Context, connections: Connections) -> None:
        super().__init__(config)
        self._context = context
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, at most ACCEPTED_AT_ONCE per iteration of the event loop."""
        await super().startup(sockets)
        # asyncio uses `backlog` both as the number to accept at once and as the length of the kernel's queue.
        for listener in sockets or []:
            listener.listen(BACKLOG)
        asyncio.get_running_loop().set_exception_handler(self._on_loop_exception)
        # If no file descriptor is free, asyncio by default waits a second before it accepts the next connection. That
        # would delay health checks.
        setattr(constants, "ACCEPT_RETRY_DELAY", ACCEPT_AGAIN_SECONDS)  # noqa: B010 (a constant to type checkers)

    async def on_tick(self, counter: int) -> bool:
        """Close connections that exceed a time limit; uvicorn calls this ten times a second."""
        self._connections.close_overdue(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all streams, then let uvicorn wait for open requests."""
        self._connections.draining = True
        self._context.generations.drain()
        await self._context.hub.close()
        await super().shutdown(sockets)

    def _on_loop_exception(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        """Log one line when a connection could not be accepted; asyncio would log a traceback each time."""
        if "out of system resource" in details.get("message", ""):
            log.warning(
                "no file descriptor is free for a new connection; closing idle connections",
                error=str(details["exception"]),
            )
            self._connections.free_descriptors()
        else:
            loop.default_exception_handler(details)


def make_server(app: FastAPI, settings: Settings) -> ApiServer:
    """Return the server for `settings.host` and `settings.port`; start it with `.run()` or `await .serve()`."""
    context: Context = app.state.context
    connections = Connections(context.limits, context.metrics)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # uvicorn calls `http` to create a protocol object. Its annotation requires a class, but any callable works.
        http=cast(type[asyncio.Protocol], partial(HttpConnection, connections, RequestTimeLimits.of(settings))),
        log_config=None,
        log_level="warning",  # instead of uvicorn's four lines, `__main__` logs the line `listening`
        access_log=False,
        backlog=ACCEPTED_AT_ONCE,
        proxy_headers=bool(settings.trusted_proxies.strip()),
        forwarded_allow_ips=settings.trusted_proxies or None,
        server_header=False,
        # The annotation is int, but uvicorn only passes the value to `loop.call_later`, which accepts a float.
        timeout_keep_alive=cast(int, settings.keep_alive_seconds),
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
    )
    return ApiServer(config, context, connections)
