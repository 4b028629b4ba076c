"""Flower's guard logs the exception of a failing handler and keeps the traceback out of the response."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from flower.views import BaseHandler
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from common.access import KnownHosts, TrustedProxies
from services.worker.flower_guard import FlowerAccess, guard


class Failing(BaseHandler):
    """A handler that always raises an exception."""

    def get(self) -> None:
        raise RuntimeError("of /srv/secret/place")


def test_an_error_of_flower_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    handlers: list[Any] = [("/fails", Failing), ("/login", Failing)]
    settings: dict[str, Any] = {}
    guard(handlers, settings, FlowerAccess("tidal:pw", KnownHosts(), TrustedProxies("")))
    assert [path for path, _ in handlers] == ["/fails"]

    async def ask() -> list[httpx.Response]:
        application = Application(handlers, **settings)
        application.options = type("Options", (), {"basic_auth": ["tidal:pw"], "auth": "", "debug": False})()
        [socket] = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(application)
        server.add_sockets([socket])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{socket.getsockname()[1]}") as client:
            replies = [await client.get("/fails", auth=("tidal", password)) for password in ("pw", "wrong", "pé")]
        server.stop()
        return replies

    with caplog.at_level(logging.ERROR):
        fault, *wrong = asyncio.run(ask())
    assert fault.status_code == 500
    assert "Traceback" not in fault.text and "/srv" not in fault.text
    assert "RuntimeError: of /srv/secret/place" in caplog.text
    assert [reply.status_code for reply in wrong] == [401, 401]
