"""What both embedded servers share: start or find again, wait until it answers, stop, clear away.

Port and password are drawn once and kept (0600). A server outlives a killed starter on purpose: the next `start()` of
the same folder finds it and uses it, so no row is lost and no second server meets the same files.
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
from services.local.server_files import ServerState, choose_port, folder_lock, put_aside, read_state, write_state

START_SECONDS = 30.0
STOP_SECONDS = 5.0

_children: dict[int, subprocess.Popen[bytes]] = {}
"""The servers this process started, by process id, so that whoever stops one can collect its exit status."""


class Server:
    """What both servers share. `folder` holds state, log and lock; data lies in `home`."""

    name: str

    def __init__(self, folder: Path | str, port: int | None = None) -> None:
        self.folder = Path(folder).resolve()
        self._wanted_port = port
        self._state: ServerState | None = None
        self.reused = False
        """Whether `start()` found the server running."""
        self.aside: Path | None = None
        """Where `start()` put the data that a deleted folder of the same path had left behind, None mostly."""

    @property
    def state(self) -> ServerState:
        """Port and password; UnavailableError before the first start."""
        self._state = self._state or read_state(self.folder / "server.json")
        if self._state is None:
            raise UnavailableError(f"{self.name} in {self.folder} was never started")
        return self._state

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return self.state.port

    @property
    def url(self) -> str:
        """How clients reach the server, password included."""
        raise AssertionError("each server says its own")

    @property
    def log_path(self) -> Path:
        """Where the server's own log goes."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The process id of the running server, None when it does not run."""
        process = self._process()
        return None if process is None else int(process.pid)

    @property
    def running(self) -> bool:
        """Whether the server of this folder runs and answers with our password."""
        return self._known() and self._answers()

    def start(self) -> None:
        """Start the server, or find it running, and return when it answers.

        Raises ConflictError (the given port is busy), UnavailableError (no binary, no start), StorageError.
        """
        with folder_lock(self.folder):
            self.reused = self._process() is not None and self._known()
            if self.reused and self._wait_until_it_answers(None):
                return
            self.reused = False
            self._clear_away()
            home = self._home()
            if home != self.folder and not (self.folder / "server.json").exists():
                self.aside = put_aside(home)  # its password went with the folder
            old = self._state or read_state(self.folder / "server.json")
            port = choose_port(self._wanted_port, old.port if old else None, name=self.name)
            self._state = ServerState(port=port, password=old.password if old else secrets.token_urlsafe(24))
            write_state(self.folder / "server.json", self._state)
            process = self._launch()
            if not self._wait_until_it_answers(process):
                if process.poll() is None:
                    process.kill()
                    process.wait()
                raise UnavailableError(f"{self.name} did not start; its log ends with:\n{tail(self.log_path)}")
            self._prepare()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server, whoever started it, and return when it is gone. Nothing happens when it does not run.

        `seconds` is the wait for a clean end before it is made to end; what was committed survives either way.
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
                if gone(process, seconds):
                    break
            self._clear_away()

    def remove(self) -> None:
        """Stop the server and delete its data. For throw-away servers in tests."""
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
        """The psutil.Process of the main process of this folder's server, or None."""
        raise AssertionError("each server says how it is found")

    def _answers(self) -> bool:
        raise AssertionError("each server says how it is asked")

    def _launch(self) -> subprocess.Popen[bytes]:
        raise AssertionError("each server says how it is launched")

    def _clear_away(self) -> None:
        """What a crash, or a deleted folder of the same path, left behind and a start would trip over."""

    def _prepare(self) -> None:
        """What is done once after each start."""

    def _known(self) -> bool:
        self._state = self._state or read_state(self.folder / "server.json")
        return self._state is not None

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes] | None) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._answers():
                return True
            if process.poll() is not None if process else self._process() is None:
                return False
            time.sleep(0.02)  # neither server announces readiness in another way
        return False


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def spawn(command: list[Any], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a server whose output goes to the end of `log`."""
    with log.open("ab") as output:
        # Its own session: Ctrl-C in the terminal is the supervisor's to handle.
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # PostgreSQL may run as another user, who could read every variable of its environment.
            env=server_environment(os.environ),
            **options,
        )
    _children[process.pid] = process
    return process


def living(pid: int) -> Any:
    """The psutil.Process of `pid`, None when there is none or it is a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.NoSuchProcess:
        return None
    if child := _children.pop(pid, None):
        child.wait()  # ours, and dead: collect it
    return None


def works_in(process: Any, folder: Path) -> bool:
    """Whether the working directory of the process is `folder`."""
    try:
        return Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False


def end_strays(names: Sequence[str], folder: Path, signals: Sequence[signal.Signals]) -> None:
    """End processes of these names that work in `folder`, also in a deleted one of that path."""
    strays = [p for p in psutil.process_iter(["name"]) if p.info["name"] in names and works_in(p, folder)]
    for number in signals:
        for process in strays:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        strays = [process for process in strays if not gone(process, 1.0)]


def gone(process: Any, seconds: float) -> bool:
    """Whether the process ends within `seconds`; a zombie (our own child, or another's) counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if child := _children.pop(process.pid, None):
                    child.wait()
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)  # no event for processes that are not our children
    return False
