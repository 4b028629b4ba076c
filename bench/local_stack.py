"""Starts a complete local stack in its own folder, for the benchmarks that need one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tidal_client.local_instance import LocalInstance, read_instance

ROOT = Path(__file__).resolve().parent.parent
READY_LIMIT_SECONDS = 120.0
STOP_LIMIT_SECONDS = 30.0


@dataclass(frozen=True)
class RunningStack:
    """A running stack: its folder, its supervisor process, and the seconds from its start until it was ready."""

    folder: Path
    instance: LocalInstance
    seconds_to_ready: float
    process: subprocess.Popen[bytes]

    def stop(self) -> float:
        """Send SIGTERM to the supervisor. Return the seconds until the last process has exited."""
        started = time.monotonic()
        self.process.terminate()
        self.process.wait(STOP_LIMIT_SECONDS)
        return time.monotonic() - started


@contextmanager
def local_stack(folder: Path | None = None, *, settings: Mapping[str, str] | None = None) -> Iterator[RunningStack]:
    """Start a stack and yield it once the api is ready. `settings` is {environment variable: value}."""
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as temporary:
        folder = folder or Path(temporary) / "instance"
        command = [sys.executable, "-m", "services.local", "up", "--quiet", "--folder", str(folder)]
        ports = ["--port", "0", "--flower-port", "0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")}
        environment["TIDAL_CALIBRATE"] = "false"  # it would take CPU time from what is measured
        environment |= settings or {}
        started = time.monotonic()
        process = subprocess.Popen([*command, *ports], cwd=ROOT, env=environment)
        try:
            yield RunningStack(folder, _wait(folder, process, started), time.monotonic() - started, process)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(STOP_LIMIT_SECONDS)


def _wait(folder: Path, process: subprocess.Popen[bytes], started: float) -> LocalInstance:
    while time.monotonic() - started < READY_LIMIT_SECONDS:
        if process.poll() is not None:
            raise RuntimeError(f"the stack ended with status {process.returncode}")
        instance = read_instance(folder)
        if instance is not None:
            try:
                if httpx.get(f"{instance.api_url}/readyz", timeout=2).status_code == 200:
                    return instance
            except httpx.TransportError:
                pass
        time.sleep(0.02)
    raise RuntimeError(f"the stack was not ready within {READY_LIMIT_SECONDS:.0f} s")
