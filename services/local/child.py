"""A supervised process: it is started, its output is read, and it is restarted after a crash and stopped in time.

No method blocks; `services.local.supervisor` contains the loop that calls them. Start children only from the main
thread: `launch.py` asks the kernel to end the child when the thread that forked it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.backoff import Backoff
from common.child.launch import kill_group
from tidal_client.local_instance import ProcessState

LAUNCHER = Path(__file__).with_name("launch.py")
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
HEALTHY_SECONDS = 60.0
"""Run time in seconds after which the restart delay is reset."""


@dataclass(frozen=True)
class ChildSpec:
    """The command, environment and limits of a child. `module_arguments` follow the Python interpreter."""

    name: str
    module_arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """The complete environment of the child; nothing is inherited."""
    nice: int = 0
    stop_seconds: float = 3.0
    """Seconds from SIGTERM to SIGKILL."""
    after_ready: bool = False
    """Whether to start the child only once the api answers, so that the api is ready sooner."""
    port: int | None = None


class Child:
    """A process that runs until it is stopped."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.start_at: float | None = 0.0
        """Monotonic time of the next start; None when no start is planned."""
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._silent = False
        self._started = 0.0
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._kill_at: float | None = None

    @property
    def running(self) -> bool:
        """Return whether there is a process whose exit status has not been collected."""
        return self._process is not None

    @property
    def output(self) -> int | None:
        """Return the descriptor of stdout and stderr; None if the process does not run or has closed both."""
        if self._process is None or self._process.stdout is None or self._silent:
            return None
        return self._process.stdout.fileno()

    @property
    def state(self) -> ProcessState:
        """Return the entry for the state file."""
        process = self._process
        status = "running" if process else "restarting" if self.start_at is not None else "stopped"
        return ProcessState(process.pid if process else None, self.spec.port, status, self.restarts)

    def start(self) -> None:
        """Start the process in a new session."""
        arguments = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(self.spec.nice)]
        self._process = subprocess.Popen(
            [*arguments, sys.executable, *self.spec.module_arguments],
            env=dict(self.spec.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._silent = False
        self._started = time.monotonic()
        self.start_at = None

    def read_lines(self) -> list[str]:
        """Return the complete lines that the process has written since the last call."""
        if self.output is None:
            return []
        with suppress(BlockingIOError):
            while block := os.read(self.output, 65536):
                self._rest += block
            self._silent = True
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > 1_000_000:  # limit the memory for a line that does not end
            lines, self._rest = [*lines, self._rest], b""
        return [line.decode(errors="replace") for line in lines]

    def collect(self) -> tuple[int, list[str]] | None:
        """Return exit status (negative: signal) and last lines of a process that has ended, otherwise None.

        It does not plan a restart.
        """
        if self._process is None or self._process.poll() is None:
            return None
        lines = self.read_lines()
        if self._rest:
            lines.append(self._rest.decode(errors="replace"))
            self._rest = b""
        status = self._process.returncode
        kill_group(self._process.pid)  # processes that the child left in its session
        if self._process.stdout:
            self._process.stdout.close()
        self._process = None
        self._kill_at = None
        return status, lines

    def plan_restart(self) -> float:
        """Plan a restart and return its delay in seconds, which doubles with each early end."""
        if time.monotonic() - self._started >= HEALTHY_SECONDS:
            self._backoff.reset()
        delay = self._backoff.next()
        self.restarts += 1
        self.start_at = time.monotonic() + delay
        return delay

    def stop(self, *, at_once: bool = False) -> None:
        """Send SIGTERM and set the deadline after which `enforce` kills the process. With `at_once`, kill it now."""
        self.start_at = None
        if self._process is None:
            return
        if at_once:
            kill_group(self._process.pid)
        elif self._kill_at is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
            self._kill_at = time.monotonic() + self.spec.stop_seconds

    def enforce(self) -> bool:
        """Kill the process if its deadline has passed. Return whether this call killed it."""
        if self._process is None or self._kill_at is None or time.monotonic() < self._kill_at:
            return False
        self._kill_at = None
        kill_group(self._process.pid)
        return True
