"""The real processes of a deployment (api, health, training workers) for one test, with shortened timers.

The fixtures in `tests/integration/conftest.py` provide PostgreSQL and Valkey.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.paths import ROOT

TOKEN = "acceptance-token"
TIMERS = {
    "TIDAL_LEASE_SECONDS": "6",
    "TIDAL_LEASE_RENEW_SECONDS": "1",
    "TIDAL_TRAINER_PAUSE_SECONDS": "4",
    "TIDAL_HEARTBEAT_SECONDS": "1",
    "TIDAL_REAPER_SECONDS": "0.5",
    "TIDAL_QUARANTINE_SECONDS": "1.5",
    "TIDAL_REAPER_CONTACT_SECONDS": "1",
    "TIDAL_OUTBOX_SECONDS": "1",
    "TIDAL_DESIRED_STATE_POLL_SECONDS": "0.5",
    "TIDAL_STOP_GRACE_SECONDS": "20",
    "TIDAL_KILL_GRACE_SECONDS": "5",
}
TINY_LM: dict[str, Any] = {
    "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "context_length": 16},
    "data": {"source": "builtin:stories", "max_documents": 200},
    "training": {
        "effective_batch_size": 2,
        "micro_batch_size": 2,
        "max_steps": 30,
        "epochs": 1000,
        "threads": 1,
        "compile": "off",
    },
    "evaluation": {"max_batches": 2, "sample_tokens": 4},
    "checkpoint": {"every_steps": 10},
}


def long_job(steps: int = 100_000) -> dict[str, Any]:
    """Return the configuration of a training that runs until it is stopped."""
    return {**TINY_LM, "training": {**TINY_LM["training"], "max_steps": steps, "patience": 1_000_000}}


class Stack:
    """Starts processes, which have names. The end of `with Stack(...) as stack` ends all of them."""

    def __init__(self, database_url: str, redis_url: str, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.environment = {
            **os.environ,
            **TIMERS,
            "PYTHONPATH": str(ROOT),
            "TIDAL_DATABASE_URL": database_url,
            "TIDAL_REDIS_URL": redis_url,
            "TIDAL_EXPERIMENTS_DIR": str(folder / "experiments"),
            "TIDAL_DATA_DIR": str(folder / "data"),
            "TIDAL_HOST": "127.0.0.1",
            "TIDAL_PORT": str(self.port),
            "TIDAL_AUTH_TOKEN": TOKEN,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.http.close()
        killed = self.end(*self.processes)
        if killed and kind is None:
            raise AssertionError(f"{killed} did not stop within 30 s of SIGTERM; see {self.folder}")

    def start(self, name: str, module: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start `python -m services.<module>` in a new session. Its output goes to a log file."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"services.{module}"],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_control_plane(self) -> None:
        """Start the api and the health process, and wait until the api is ready."""
        self.start("api", "api")
        self.start("health", "health")
        self.wait_for("the api to be ready", lambda: self._ready())

    def end(self, *names: str) -> list[str]:
        """Send SIGTERM to the processes and wait up to 30 s for their end.

        Processes that still run are killed. Return the names of the killed processes.
        """
        ending = {name: self.processes.pop(name) for name in names}
        for process in ending.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + 30
        killed = []
        for name, process in ending.items():
            try:
                process.wait(max(until - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed.append(name)
        return killed

    def kill(self, name: str) -> None:
        """Send SIGKILL to this process, but not to its children."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def submit(self, kind: str = "lm-training", **body: Any) -> dict[str, Any]:
        reply = self.http.post("/api/jobs", json={"type": kind, **body})
        assert reply.status_code == 201, reply.text
        return dict(reply.json())

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/api/jobs/{job_id}").raise_for_status().json())

    def events(self, job_id: str) -> list[dict[str, Any]]:
        reply = self.http.get(f"/api/jobs/{job_id}/events", params={"limit": 500}).raise_for_status()
        return list(reply.json()["events"])

    def statuses(self, job_id: str) -> list[str]:
        """Return all statuses that a job has had, in order. They are read from its events."""
        return [event["toStatus"] for event in self.events(job_id) if event.get("toStatus")]

    def signal(self, job_id: str, name: str) -> httpx.Response:
        return self.http.post(f"/api/jobs/{job_id}/signal", json={"signal": name})

    def wait_status(self, job_id: str, statuses: str | Iterable[str], seconds: float = 60) -> dict[str, Any]:
        """Wait until the status of a job is one of `statuses`, and return the job.

        Fail at once if the job ends with another status.
        """
        wanted = {statuses} if isinstance(statuses, str) else set(statuses)

        def check() -> bool:
            status = self.job(job_id)["status"]
            if status in {"failed", "cancelled", "completed"} - wanted:
                raise AssertionError(f"the status is {status} instead of {wanted}: {self.job(job_id)}")
            return status in wanted

        self.wait_for(f"status {wanted} of {job_id}", check, seconds)
        return self.job(job_id)

    def wait_for(self, what: str, check: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `check()` is true. After the time limit, fail with the last lines of all logs."""
        until = time.monotonic() + seconds
        while not check():
            if time.monotonic() > until:
                tails = "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))
                raise AssertionError(f"waited {seconds:.0f} s for {what}\n{tails}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
