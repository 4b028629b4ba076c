"""Starts local stacks in temporary folders, with their supervisors as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from services.local.servers import PostgresServer, ValkeyServer
from tests.paths import ROOT
from tidal_client.local_instance import LocalInstance, read_instance

SMALL_STACK = Path(__file__).with_name("small_stack.py")


class Running:
    """A supervisor process and its output.

    With `database`, the supervisor starts its own PostgreSQL. Otherwise it gets the URL of a database that is never
    used, which is faster.
    """

    def __init__(
        self, folder: Path, port: int = 0, behaviour: str = "steady", *, database: bool = False, **environment: str
    ) -> None:
        self.folder = folder
        if not database:
            environment["TIDAL_DATABASE_URL"] = "postgresql+psycopg://unused@127.0.0.1:1/asks"
        self.process = subprocess.Popen(
            [sys.executable, SMALL_STACK, str(folder), str(port), behaviour],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, *, times: int = 1, seconds: float = 40) -> None:
        """Wait until the output contains `text` at least `times` times."""
        with self._news:
            found = self._news.wait_for(lambda: sum(text in line for line in self.lines) >= times, seconds)
        assert found, f"{text!r} was not printed:\n{self.output}"

    def ready(self) -> LocalInstance:
        """Wait until the supervisor reports that the stack is ready, and return this object."""
        self.wait_for("ready: ")
        instance = read_instance(self.folder)
        assert instance is not None
        return instance

    def tree(self) -> list[psutil.Process]:
        """Return all processes of the stack, including the database servers."""
        instance = read_instance(self.folder)
        assert instance is not None
        mains = [psutil.Process(state.pid) for state in instance.processes.values() if state.pid]
        return [psutil.Process(self.process.pid), *mains, *(c for p in mains for c in p.children(recursive=True))]

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Send the signal, wait until the supervisor ends, and return the elapsed seconds."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.finish()
        return time.monotonic() - started

    def finish(self, seconds: float = 40) -> int:
        """Wait until the supervisor ends, and return its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


def still_running(processes: list[psutil.Process], seconds: float = 5) -> list[psutil.Process]:
    """Return the processes that still run after `seconds`; zombies do not count."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for a stack; the servers and their data are removed after the test."""
    path = tmp_path / "stack"
    yield path
    for server in (PostgresServer(path / "postgres"), ValkeyServer(path / "valkey")):
        server.remove()


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a supervisor in `folder` or another folder; all processes end with the test."""
    started: list[Running] = []

    def run(
        at: Path = folder, port: int = 0, behaviour: str = "steady", *, database: bool = False, **environment: str
    ) -> Running:
        running = Running(at, port, behaviour, database=database, **environment)
        started.append(running)
        return running

    yield run
    for running in started:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
        running.finish()
