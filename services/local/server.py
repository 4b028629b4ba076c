"""The base class of the embedded servers: start, find a running server again, wait for it, and stop it.

Port and password are chosen at the first start and stored with mode 0600. If the process that started a server is
killed, the server keeps running on purpose: the next `start()` with the same folder uses it. No data is lost, and no
second server uses the same files.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from common.config.child_environment import server_environment
from common.errors import UnavailableError
from services.local.server_files import ServerState, choose_port, folder_lock, move_aside, read_state, write_state

START_SECONDS = 30.0
STOP_SECONDS = 5.0

_children: dict[int, subprocess.Popen[bytes]] = {}
"""{process id: process} of the servers that this process has started. Their exit statuses must be collected."""


class EmbeddedServer:
    """A server whose state, log and lock are in `folder`. Its data may be in another folder (`home_for`)."""

    name: str

    def __init__(self, folder: Path | str, port: int | None = None) -> None:
        self.folder = Path(folder).resolve()
        self._wanted_port = port
        self._state: ServerState | None = None
        self.reused = False
        """Whether the last `start()` used a server that was already running."""
        self.aside: Path | None = None
        """Path to which `start()` moved the data of an earlier, deleted folder with the same path; None otherwise."""

    @property
    def state(self) -> ServerState:
        """Port and password. Raises UnavailableError before the first start."""
        self._state = self._state or read_state(self.folder / "server.json")
        if self._state is None:
            raise UnavailableError(f"{self.name} in {self.folder} has never been started")
        return self._state

    @property
    def port(self) -> int:
        """The server's TCP port on 127.0.0.1."""
        return self.state.port

    @property
    def url(self) -> str:
        """The URL for clients. It contains the password."""
        raise AssertionError("a subclass must implement this")

    @property
    def log_path(self) -> Path:
        """The path of the server's log file."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """Process id of the server; None if the server does not run."""
        process = self._process()
        return None if process is None else int(process.pid)

    @property
    def running(self) -> bool:
        """Whether the server of this folder runs and accepts the stored password."""
        return self._has_state() and self._is_responding()

    def start(self) -> None:
        """Start the server, or use the one that is already running; return when it answers.

        Raises ConflictError if the given port is in use, UnavailableError if no program is installed or the server does
        not start, and StorageError if a file cannot be written.
        """
        with folder_lock(self.folder):
            self.reused = self._process() is not None and self._has_state()
            if self.reused and self._wait_until_responding(None):
                return
            self.reused = False
            self._remove_leftovers()
            home = self._home()
            if home != self.folder and not (self.folder / "server.json").exists():
                # An earlier folder with this path was deleted, and with it the password of the data in `home`.
                self.aside = move_aside(home)
            old = self._state or read_state(self.folder / "server.json")
            port = choose_port(self._wanted_port, old.port if old else None, name=self.name)
            self._state = ServerState(port=port, password=old.password if old else secrets.token_urlsafe(24))
            write_state(self.folder / "server.json", self._state)
            process = self._launch()
            if not self._wait_until_responding(process):
                if process.poll() is None:
                    process.kill()
                    process.wait()
                raise UnavailableError(f"{self.name} did not start; its log ends with:\n{tail(self.log_path)}")
            self._prepare()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server, even if another process started it; return when it has ended.

        If it does not end within `seconds`, the next stronger signal is sent, SIGKILL as the last one. Committed data
        is never lost.
        """
        with folder_lock(self.folder):
            process = self._process()
            if process is None:
                return
            for number in (self._stop_signal, signal.SIGQUIT, signal.SIGKILL):
                try:
                    process.send_signal(number)
                except psutil.NoSuchProcess:
                    break
                if wait_until_ended(process, seconds):
                    break
            self._remove_leftovers()

    def remove(self) -> None:
        """Stop the server and delete its data. Tests use this for temporary servers."""
        self.stop()
        home = self._home()
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    _stop_signal = signal.SIGTERM

    def _home(self) -> Path:
        return self.folder

    def _process(self) -> Any:
        """Return the server's main process as a psutil.Process; None if the server does not run."""
        raise AssertionError("a subclass must implement this")

    def _is_responding(self) -> bool:
        raise AssertionError("a subclass must implement this")

    def _launch(self) -> subprocess.Popen[bytes]:
        raise AssertionError("a subclass must implement this")

    def _remove_leftovers(self) -> None:
        """Remove processes and files that would prevent a start.

        They come from a crash, or from a server whose folder had the same path and was deleted.
        """

    def _prepare(self) -> None:
        """Do additional work after each start; for subclasses."""

    def _has_state(self) -> bool:
        self._state = self._state or read_state(self.folder / "server.json")
        return self._state is not None

    def _wait_until_responding(self, process: subprocess.Popen[bytes] | None) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._is_responding():
                return True
            if process.poll() is not None if process else self._process() is None:
                return False
            time.sleep(0.02)  # The servers send no signal when they are ready, so this loop polls.
        return False


def tail(path: Path, lines: int = 5) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def start_server_process(command: list[Any], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a server process whose output is appended to the file `log`."""
    with log.open("ab") as output:
        # The server gets its own session, so that Ctrl-C in the terminal does not stop it; the supervisor handles
        # Ctrl-C.
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # The environment must contain no secrets, because PostgreSQL may run as another user, who can read it.
            env=server_environment(os.environ),
            **options,
        )
    _children[process.pid] = process
    return process


def running_process(pid: int) -> Any:
    """Return the psutil.Process with this id; None if it does not exist or is a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.NoSuchProcess:
        return None
    if child := _children.pop(pid, None):
        child.wait()  # The child has ended; collect its exit status.
    return None


def has_working_directory(process: Any, folder: Path) -> bool:
    """Return whether the working directory of the process is `folder`."""
    try:
        return Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False


def end_stray_processes(names: Sequence[str], folder: Path, signals: Sequence[signal.Signals]) -> None:
    """End processes whose name is in `names` and whose working directory is `folder`.

    All of them get the first signal in `signals`. Those that have not ended a second later get the next signal, and so
    on. This includes processes that were started in an earlier folder with the same path, which was deleted since.
    """
    strays = [p for p in psutil.process_iter(["name"]) if p.info["name"] in names and has_working_directory(p, folder)]
    for number in signals:
        for process in strays:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        strays = [process for process in strays if not wait_until_ended(process, 1.0)]


def wait_until_ended(process: Any, seconds: float) -> bool:
    """Wait up to `seconds` for a process to end. Return whether it has ended; a zombie counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if child := _children.pop(process.pid, None):
                    child.wait()
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)  # There is no event for the end of a process that is not a child, so this loop polls.
    return False
