"""A supervised process: starts a program, reads its output, restarts it after a crash and stops it in time.

No method blocks; the loop that calls them is in `services.local.supervisor`. Start children only from the main thread,
because `launch.py` asks the kernel to end the child when the thread that forked it ends.
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
"""A process that ends after running for at least this number of seconds is restarted with the shortest delay."""


@dataclass(frozen=True)
class ChildSpec:
    """The command, environment and limits of a child. `module_arguments` are passed to the Python interpreter."""

    name: str
    module_arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """All environment variables of the child; it inherits none."""
    nice: int = 0
    stop_seconds: float = 3.0
    """Time in seconds between SIGTERM and SIGKILL."""
    after_ready: bool = False
    """Whether to start the child only once the api answers. The api is then ready sooner."""
    port: int | None = None


class Child:
    """A child process of the stack. It is restarted whenever it ends, until `stop` is called."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.start_at: float | None = 0.0
        """Time of the next start on the monotonic clock; None if no start is planned."""
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._silent = False
        self._started = 0.0
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._kill_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process whose exit status has not been collected."""
        return self._process is not None

    @property
    def output(self) -> int | None:
        """Descriptor from which stdout and stderr can be read; None if the process does not run or has closed both."""
        if self._process is None or self._process.stdout is None or self._silent:
            return None
        return self._process.stdout.fileno()

    @property
    def state(self) -> ProcessState:
        """The entry of this process in the state file."""
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
        if len(self._rest) > 1_000_000:  # A line without an end must not use unlimited memory.
            lines, self._rest = [*lines, self._rest], b""
        return [line.decode(errors="replace") for line in lines]

    def collect(self) -> tuple[int, list[str]] | None:
        """Return exit status (negative: signal) and last lines of a process that has ended; None if it still runs.

        This method does not plan a restart.
        """
        if self._process is None or self._process.poll() is None:
            return None
        lines = self.read_lines()
        if self._rest:
            lines.append(self._rest.decode(errors="replace"))
            self._rest = b""
        status = self._process.returncode
        kill_group(self._process.pid)  # Kill processes that the child has started and that still run.
        if self._process.stdout:
            self._process.stdout.close()
        self._process = None
        self._kill_at = None
        return status, lines

    def plan_restart(self) -> float:
        """Plan a restart and return its delay in seconds.

        The delay doubles unless the process ran for at least HEALTHY_SECONDS.
        """
        if time.monotonic() - self._started >= HEALTHY_SECONDS:
            self._backoff.reset()
        delay = self._backoff.next()
        self.restarts += 1
        self.start_at = time.monotonic() + delay
        return delay

    def stop(self, *, at_once: bool = False) -> None:
        """Send SIGTERM, and set the time at which `enforce` kills the process. With `at_once`, kill the process now."""
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
        """Kill the process if it has not ended in time after `stop`. Return whether this call killed it."""
        if self._process is None or self._kill_at is None or time.monotonic() < self._kill_at:
            return False
        self._kill_at = None
        kill_group(self._process.pid)
        return True
