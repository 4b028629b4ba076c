"""The trainer as a process: started in its own session with a socketpair and a log pipe, watched, ended.

The child asks for SIGKILL at the death of the thread that started it, so call `start` from the thread that stays with
the job. Leaves out: what the messages mean (`services.worker.supervisor`), what an exit means
(`services.worker.exit_status`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from common.child.protocol import Channel, Message, Start
from common.child.socket import CHILD_FD_VARIABLE, PARENT_PID_VARIABLE
from common.config.child_environment import child_environment
from services.worker.log_capture import LogCapture
from services.worker.wakeup import Wakeup

OOM_SCORE_ADJUSTMENT = 500
"""Of -1000 … 1000: when memory runs out the kernel shall take the trainer, not a server or the worker beside it."""
EXIT_SECONDS = 5.0
"""From the end of the channel to SIGKILL of a child that does not leave."""


def trainer_command(configured: str) -> list[str]:
    """The command line of a trainer; `configured` empty means this Python's `services.trainer`."""
    return shlex.split(configured) if configured else [sys.executable, "-m", "services.trainer"]


class ChildProcess:
    """One trainer process. Only `send` may be called from another thread."""

    def __init__(self, command: list[str], log: LogCapture, environ: Mapping[str, str] = os.environ) -> None:
        self._command = command
        self._log = log
        self._environ = child_environment(environ)
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, also the id of its process group and session; None before `start`."""
        return None if self._process is None else self._process.pid

    def start(self, message: Start) -> None:
        """Execute the command and hand it the job; raises OSError when it cannot be executed."""
        channel, theirs = Channel.pair()
        environ = {
            **self._environ,
            "PYTHONUNBUFFERED": "1",
            CHILD_FD_VARIABLE: str(theirs.fileno()),
            PARENT_PID_VARIABLE: str(os.getpid()),
        }
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=self._log.write_fd,
                stderr=self._log.write_fd,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environ,
            )
        except OSError:
            channel.close()
            raise
        finally:
            theirs.close()
            self._log.child_has_it()
        self._channel = channel
        with contextlib.suppress(OSError, ValueError):
            score = Path(f"/proc/{self._process.pid}/oom_score_adj")
            score.write_text(f"{max(int(score.read_text()), OOM_SCORE_ADJUSTMENT)}\n")
        self.send(message)

    def send(self, message: Message) -> bool:
        """Hand over a message; False when the child is gone."""
        if self._channel is None:
            return False
        try:
            return self._channel.send(message)
        except OSError:
            return False

    def receive(self, timeout: float, wakeup: Wakeup) -> Message | None:
        """The next message; None after `timeout` seconds, or once it was woken. EOFError when the child is gone.

        A child that is gone is noticed within `timeout` even if something it started holds its end of the channel.
        """
        assert self._channel is not None, "start the child first"
        assert self._process is not None
        gone = self._process.poll() is not None
        message = self._channel.receive(0.0 if gone else timeout, wakeup=wakeup.fileno())
        if gone and message is None:
            raise EOFError("the child has ended")
        return message

    def terminate(self) -> None:
        """SIGTERM to the trainer itself."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to the trainer's whole process group, which it shares with its own workers."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, timeout: float = EXIT_SECONDS) -> int:
        """The exit status (negative: signal); a child that has not left after `timeout` seconds is killed."""
        assert self._process is not None, "start the child first"
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def close(self) -> None:
        """Make sure that nothing of the child is left, and free the descriptors."""
        if self._process is not None:
            # The group outlives its leader when the trainer's own workers do.
            self.kill()
            self._process.wait()
        if self._channel is not None:
            self._channel.close()
