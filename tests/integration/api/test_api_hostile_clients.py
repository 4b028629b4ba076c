"""An api process with few file descriptors serves clients while hundreds of other connections are held open.

`bench.hostile_clients` measures the same with many more connections.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from common.config import PROJECT_ROOT, Settings
from tests.integration.api.conftest import BEARER, TINY_CONFIG, TOKEN, events_of

DESCRIPTORS = 200
LIMITED = (
    "import resource, runpy; "
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS})); "
    "runpy.run_module('services.api', run_name='__main__')"
)
FIRST_BYTES = {
    "idle": b"",
    "half header": b"GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    "half body": b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{",
}


@contextmanager
def limited_api(settings: Settings, log: Path, **environment: str) -> Iterator[str]:
    """Run the api with at most DESCRIPTORS file descriptors, write its standard error to `log`, and yield its URL."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")}
    ours = {
        "PYTHONPATH": str(PROJECT_ROOT),
        "TIDAL_DATABASE_URL": settings.database_url.get_secret_value(),
        "TIDAL_REDIS_URL": settings.redis_url.get_secret_value(),
        "TIDAL_AUTH_TOKEN": TOKEN,
        "TIDAL_EXPERIMENTS_DIR": str(settings.experiments_dir),
        "TIDAL_DATA_DIR": str(settings.data_dir),
        "TIDAL_PORT": "0",
    }
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-c", LIMITED], cwd=log.parent, env={**inherited, **ours, **environment}, stderr=output
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert started.poll() is None, log.read_text()
            time.sleep(0.05)
        yield found.group()
    finally:
        started.terminate()
        status = started.wait(40)
    assert status == 0, log.read_text()


def alive(url: str) -> bool:
    with httpx.Client(base_url=url, timeout=20) as http:
        return http.get("/healthz").status_code == 200 and http.get("/readyz").status_code == 200


@pytest.mark.parametrize("kind", FIRST_BYTES)
def test_held_connections_do_not_affect_other_clients(settings: Settings, tmp_path: Path, kind: str) -> None:
    settings.experiments_dir.mkdir(exist_ok=True)
    log = tmp_path / "api.log"
    times = {"TIDAL_REQUEST_HEADER_SECONDS": "1", "TIDAL_REQUEST_BODY_SECONDS": "2", "TIDAL_KEEP_ALIVE_SECONDS": "2"}
    with limited_api(settings, log, **times) as url, ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=url, headers=BEARER, timeout=20))
        events = stack.enter_context(events_of(http, "/api/jobs/stream"))
        assert events.take(1)[0].name == "snapshot"
        address = (httpx.URL(url).host, httpx.URL(url).port or 0)
        submitted = []
        for number in range(400):
            client = stack.enter_context(socket.create_connection(address, timeout=20))
            client.sendall(FIRST_BYTES[kind])
            if number % 50 == 0:
                assert alive(url)
        time.sleep(3)  # longer than each time limit of the api
        assert alive(url)
        for _ in range(5):
            with httpx.Client(base_url=url, headers=BEARER, timeout=20) as other:
                reply = other.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG})
            assert reply.status_code == 201, reply.text
            submitted.append(reply.json()["id"])
        assert [event.data["id"] for event in events.take(5)] == submitted
        assert len(log.read_text().splitlines()) <= 100


def test_running_out_of_descriptors_is_logged_briefly_and_ends_with_the_shortage(
    settings: Settings, tmp_path: Path
) -> None:
    """The api's connection limit always keeps some descriptors free.

    To use them up, the test lowers the limit of descriptors of the running process.
    """
    settings.experiments_dir.mkdir(exist_ok=True)
    log = tmp_path / "api.log"
    with limited_api(settings, log) as url, ExitStack() as stack:
        pid = _listener(url)
        open_now = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 2, DESCRIPTORS))
        address = (httpx.URL(url).host, httpx.URL(url).port or 0)
        for _ in range(30):
            stack.enter_context(socket.create_connection(address, timeout=20))
        time.sleep(3)
        with httpx.Client(base_url=url, timeout=20) as http:
            assert http.get("/healthz").status_code == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        assert alive(url)
        text = log.read_text()
        assert "no file descriptor is free" in text and "Traceback" not in text
        assert len(text.splitlines()) <= 100


def _listener(url: str) -> int:
    """Return the pid of the process that listens at `url`."""
    port = httpx.URL(url).port
    return next(
        child.pid
        for child in psutil.Process().children()
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in child.net_connections())
    )
