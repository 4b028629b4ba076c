"""Servers that belong to a single test, which may kill them, and a function that runs the api.

A test module that kills a server overrides the fixture `redis_url` or `database_url` with the URL of one of these
servers. Single connections are interrupted with `tests.faults.proxy`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.local.servers import PostgresServer, ValkeyServer
from tests.faults.fault_workers import FaultWorkers

TOKEN = "fault-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def valkey_of_its_own(folder: Path) -> Iterator[ValkeyServer]:
    """Run a Valkey that the test may kill. It has an append-only file, so its data survives."""
    server = ValkeyServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.remove()


@contextmanager
def postgres_of_its_own(folder: Path) -> Iterator[PostgresServer]:
    """Run a PostgreSQL that the test may kill.

    The server runs without fsync. A kill of the server still loses no writes, because the machine keeps running.
    """
    server = PostgresServer(folder, settings={"fsync": "off"})
    server.start()
    try:
        yield server
    finally:
        server.remove()


def kill_9(server: ValkeyServer | PostgresServer) -> None:
    """Send SIGKILL to the server's main process and its children."""
    assert server.pid is not None
    main = psutil.Process(server.pid)
    family = [*main.children(recursive=True), main]
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + 20
    while server.pid is not None:
        assert time.monotonic() < deadline, "it did not die"
        time.sleep(0.02)


@contextmanager
def running_api(workers: FaultWorkers, **environment: str) -> Iterator[httpx.Client]:
    """Run the api as a process of `workers`; when it is ready, yield a client with the administrator's token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    workers.start(
        "api",
        "services.api",
        TIDAL_HOST="127.0.0.1",
        TIDAL_PORT=str(port),
        TIDAL_AUTH_TOKEN=TOKEN,
        **environment,
    )

    def ready() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=BEARER, timeout=30) as client:
        workers.wait_for(ready, "the api")
        yield client


def submit_over_http(workers: FaultWorkers, client: httpx.Client, **body: Any) -> str:
    """Submit a job, assert that the reply has the status 201, and return the job's id."""
    reply = client.post("/api/jobs", json={"type": "lm-training", **body})
    assert reply.status_code == 201, reply.text
    job_id = str(reply.json()["id"])
    workers.submitted.append(job_id)
    return job_id


def metric(client: httpx.Client, name: str) -> float:
    """Return the value with this name from the api's `/metrics`."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"/metrics has no value {name}")
