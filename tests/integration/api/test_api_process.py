"""`python -m services.api` as a process: errors at start, output, and shutdown."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import httpx
import pytest

from common.config import Settings
from services.api.__main__ import listen
from tests.integration.api.api_process import address_of, process
from tests.integration.api.conftest import TOKEN, events_of


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TIDAL_HOST": "0.0.0.0"}, "TIDAL_AUTH_TOKEN is not set"),
        ({"TIDAL_HOST": "0.0.0.0"}, "TIDAL_AUTH_TOKEN is not set"),
        ({"TIDAL_AUTH_TOKEN": "short"}, "shorter than 8"),
        ({"TIDAL_PORT": "http"}, "port"),
        ({"TIDAL_DATABASE_URL": "mysql://x/y"}, "PostgreSQL"),
    ],
)
def test_an_api_that_cannot_start_prints_one_clear_line(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    with process(tmp_path, **environment) as started:
        output, errors = started.communicate(timeout=60)
    assert started.returncode == 2
    assert message.lower() in errors.lower() and "Traceback" not in errors
    assert output == ""


def test_a_port_in_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with process(tmp_path, TIDAL_PORT=str(port)) as started:
            _, errors = started.communicate(timeout=60)
    assert started.returncode == 2
    assert f"port {port}" in errors and "in use" in errors


def test_on_loopback_the_api_generates_and_prints_a_token(tmp_path: Path, database_url: str, redis_url: str) -> None:
    with process(tmp_path, TIDAL_PORT="0", TIDAL_DATABASE_URL=database_url, TIDAL_REDIS_URL=redis_url) as started:
        url = address_of(started)
        assert started.stdout is not None
        token = started.stdout.readline().split()[-1]
        assert len(token) >= 24
        assert httpx.post(f"{url}/api/jobs/x/cancel").status_code == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert httpx.post(f"{url}/api/jobs/x/cancel", headers=bearer).status_code == 404


def test_sigterm_ends_open_streams_and_exits_with_0(tmp_path: Path, database_url: str, redis_url: str) -> None:
    environment = {"TIDAL_PORT": "0", "TIDAL_AUTH_TOKEN": TOKEN}
    with process(tmp_path, TIDAL_DATABASE_URL=database_url, TIDAL_REDIS_URL=redis_url, **environment) as started:
        url = address_of(started)
        with httpx.Client(base_url=url, timeout=30) as client, events_of(client, "/api/jobs/stream") as events:
            events.take(1)
            started.send_signal(signal.SIGTERM)
            assert list(events) == []
        assert started.wait(20) == 0


def test_a_reply_does_not_wait_for_the_acknowledgement_of_the_previous_one(tmp_path: Path) -> None:
    async def accepted() -> int:
        option: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            option.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(serve, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                return await option
            finally:
                writer.close()
                await writer.wait_closed()

    listener = listen(Settings(_env_file=None, port=0, experiments_dir=tmp_path))
    assert asyncio.run(accepted()) != 0, "TCP_NODELAY is not set"
