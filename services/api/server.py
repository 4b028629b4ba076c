"""uvicorn around the app: ends streams first on SIGTERM, then gives open requests 20 s.

Leaves out: TLS and several processes; put a proxy in front, start more processes behind it.
"""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from common.config import Settings
from services.api.context import Context

GRACEFUL_SHUTDOWN_SECONDS = 20


class Server(uvicorn.Server):
    """A uvicorn server that closes the stream hub before it waits for connections."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every stream, then let uvicorn drain."""
        self._context.generations.drain()
        await self._context.hub.close()
        await super().shutdown(sockets)


def make_server(app: FastAPI, settings: Settings) -> Server:
    """The server for `settings.host` and `settings.port`; it runs with `.run()` or `await .serve()`."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning",  # its progress in four lines is one of ours, `listening`
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies.strip()),
        forwarded_allow_ips=settings.trusted_proxies or None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
    )
    return Server(config, app.state.context)
