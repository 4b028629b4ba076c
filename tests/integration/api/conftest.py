"""Fixtures that run the api on a real port in a thread of the test process, with a real PostgreSQL and Valkey."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.config import Settings
from services.api.app import create_app
from services.api.context import Context
from services.api.server import make_server
from tidal_client import StreamEvent, read_events

TOKEN = "administrator-token"
TLS = httpx.create_ssl_context()
"""The TLS context of all clients. Without it, httpx loads the system's certificates for each client."""
BEARER = {"Authorization": f"Bearer {TOKEN}"}

TINY_CONFIG = {"model": {"d_model": 16, "num_layers": 1, "num_heads": 2}, "data": {"source": "builtin:stories"}}


@dataclass
class Api:
    """A running api. The client `http` sends no token; `admin` sends the token."""

    url: str
    settings: Settings
    context: Context
    http: httpx.Client
    admin: httpx.Client

    def submit(self, **body: Any) -> dict[str, Any]:
        reply = self.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG, **body})
        assert reply.status_code == 201, reply.text
        return dict(reply.json())

    def experiment_folder(self, experiment_id: str) -> Path:
        folder = self.settings.experiments_dir / experiment_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder


RunApi = Callable[..., Any]


class Documented:
    """Middleware that records response statuses that the OpenAPI document does not list for the operation."""

    def __init__(self, app: ASGIApp, document: Callable[[], dict[str, Any]], surprises: set[str]) -> None:
        self._app = app
        self._document = document
        self._surprises = surprises

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def record(message: Message) -> None:
            route = getattr(scope.get("route"), "path", None)
            if message["type"] == "http.response.start" and route is not None:
                self._note(scope["method"], route.replace(":path}", "}"), message["status"])
            await send(message)

        await self._app(scope, receive, record)

    def _note(self, method: str, path: str, status: int) -> None:
        operation = self._document()["paths"].get(path, {}).get(method.lower())
        # 500 and 204 need not be documented: 500 comes from faults that tests inject, and a client that has
        # disconnected is recorded with 204.
        if operation is not None and str(status) not in operation["responses"] and status not in (204, 500):
            self._surprises.add(f"{method} {path}: {status}")


_documents: list[dict[str, Any]] = []


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document. It is the same for every test and takes half a second to build, so it is cached."""
    if not _documents:
        _documents.append(app.openapi())
    return _documents[0]


@contextmanager
def running(settings: Settings, **changes: Any) -> Iterator[Api]:
    """Run the api with `settings`, changed by `changes`, until the block ends; the server must stop within 20 s."""
    secret = {name: SecretStr(changes[name]) for name in ("database_url", "redis_url") if name in changes}
    settings = settings.model_copy(update={"port": 0, **changes, **secret})
    app = create_app(settings, TOKEN)
    surprises: set[str] = set()
    app.add_middleware(Documented, document=lambda: document(app), surprises=surprises)
    server = make_server(app, settings)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # from now on, new connections wait until the server accepts them
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with (
        httpx.Client(base_url=url, timeout=20, verify=TLS) as http,
        httpx.Client(base_url=url, headers=BEARER, timeout=20, verify=TLS) as admin,
    ):
        # Without `listen`, the bound socket would refuse connections instead of queueing them.
        transport = httpx.HTTPTransport(retries=10, verify=TLS)
        with httpx.Client(base_url=url, transport=transport, timeout=20) as first:
            first.get("/healthz").raise_for_status()
        yield Api(url, settings, app.state.context, http, admin)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive(), "the server did not stop"
    assert surprises == set(), "the OpenAPI document does not name these statuses"


@pytest.fixture(autouse=True, scope="session")
def plain_logs() -> None:
    """Send log lines to the logging module, because pytest shows its records when a test fails."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Return settings whose configuration folder belongs to this test."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "base_config.yaml").write_text("data: {source: 'builtin:stories'}\ntraining: {max_steps: 7}\n")
    (folder / "rl_config.yaml").write_text("ppo: {total_steps: 4096}\n")
    (tmp_path / "secret.yaml").write_text("training: {max_steps: 1}\n")
    return settings.model_copy(update={"config_dir": folder})


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    """Run the api with default settings."""
    with running(settings) as running_api:
        yield running_api


@pytest.fixture
def serve(settings: Settings) -> RunApi:
    """Return a function that runs an api with changed settings: `with serve(require_auth_for_reads=True) as api:`."""
    return lambda **changes: running(settings, **changes)


class Events:
    """Iterates over the events of a streamed response."""

    def __init__(self, reply: httpx.Response) -> None:
        self._events = read_events(reply)

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._events

    def take(self, count: int) -> list[StreamEvent]:
        return [next(self._events) for _ in range(count)]


@contextmanager
def events_of(client: httpx.Client, path: str, since: str | None = None) -> Iterator[Events]:
    """Open a stream and yield its events."""
    headers = {"Last-Event-ID": since} if since is not None else {}
    with client.stream("GET", path, headers=headers) as reply:
        if reply.status_code != 200:
            reply.read()
        assert reply.status_code == 200, reply.text
        yield Events(reply)
