"""The trainer as a child process whose output goes to its log, and which exchanges messages with the supervisor.

Launching and ending a child is in `common.child.launch`. The messages are interpreted in `services.worker.supervisor`,
exit statuses in `services.worker.exit_status`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from common.child.launch import LaunchedChild, launch
from common.child.protocol import Channel, Message, Start
from common.config.child_environment import child_environment
from services.worker.log_capture import LogCapture
from services.worker.wakeup_pipe import WakeupPipe

OOM_SCORE_ADJUSTMENT = 500
"""The trainer's oom_score_adj (-1000 … 1000).

With this value, the kernel kills the trainer instead of a server or the worker when memory runs out.
"""
EXIT_SECONDS = 5.0
"""Time in seconds after which a child that has closed its channel but has not exited is killed with SIGKILL."""


def trainer_command(configured: str) -> list[str]:
    """Return the command line of a trainer.

    If `configured` is empty, the command runs `services.trainer` with the Python interpreter of this process.
    """
    return shlex.split(configured) if configured else [sys.executable, "-m", "services.trainer"]


class ChildProcess:
    """One trainer process. Another thread may call only `send`.

    Call `start` from the thread that supervises the job, because the kernel kills the trainer when that thread ends.
    """

    def __init__(self, command: list[str], log: LogCapture, environ: Mapping[str, str] = os.environ) -> None:
        self._command = command
        self._log = log
        self._environ = {**child_environment(environ), "PYTHONUNBUFFERED": "1"}
        self._child: LaunchedChild[Channel] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the trainer, which is also the id of its process group and session; None before `start`."""
        return None if self._child is None else self._child.pid

    def start(self, message: Start) -> None:
        """Start the trainer and send it the job. Raises OSError if the command cannot be executed."""
        try:
            self._child = child = launch(Channel, self._command, self._environ, output=self._log.write_fd)
        finally:
            self._log.close_write_end()
        with contextlib.suppress(OSError, ValueError):
            score = Path(f"/proc/{child.pid}/oom_score_adj")
            score.write_text(f"{max(int(score.read_text()), OOM_SCORE_ADJUSTMENT)}\n")
        self.send(message)

    def send(self, message: Message) -> bool:
        """Send a message. Return False if the child has ended."""
        if self._child is None:
            return False
        try:
            return self._child.channel.send(message)
        except OSError:
            return False

    def receive(self, timeout: float, wakeup: WakeupPipe) -> Message | None:
        """Return the next message. Return None after `timeout` seconds, or when `wakeup` is set.

        Raises EOFError if the child has ended. The end is detected within `timeout` even if a process that the child
        has started still holds the child's end of the channel.
        """
        assert self._child is not None, "start the child first"
        ended = self._child.ended
        message = self._child.channel.receive(0.0 if ended else timeout, wakeup=wakeup.fileno())
        if ended and message is None:
            raise EOFError("the child has ended")
        return message

    def terminate(self) -> None:
        """Send SIGTERM to the trainer, not to processes that it has started."""
        if self._child is not None:
            self._child.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the trainer's process group, which includes processes that it has started."""
        if self._child is not None:
            self._child.kill()

    def wait(self, timeout: float = EXIT_SECONDS) -> int:
        """Return the exit status (negative: signal). A child that has not exited after `timeout` seconds is killed."""
        assert self._child is not None, "start the child first"
        return self._child.wait(timeout)

    def close(self) -> None:
        """Kill the processes that remain in the child's process group, and close the channel."""
        if self._child is not None:
            self._child.close()
