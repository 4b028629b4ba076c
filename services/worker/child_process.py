"""The trainer as a child process: started with its log, read and written by the supervisor, ended.

Leaves out: how a child is launched and ended (`common.child.launch`), what the messages mean
(`services.worker.supervisor`), what an exit means (`services.worker.exit_status`).
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
from services.worker.wakeup import Wakeup

OOM_SCORE_ADJUSTMENT = 500
"""Of -1000 … 1000: when memory runs out the kernel shall take the trainer, not a server or the worker beside it."""
EXIT_SECONDS = 5.0
"""From the end of the channel to SIGKILL of a child that does not leave."""


def trainer_command(configured: str) -> list[str]:
    """The command line of a trainer; `configured` empty means this Python's `services.trainer`."""
    return shlex.split(configured) if configured else [sys.executable, "-m", "services.trainer"]


class ChildProcess:
    """One trainer process. Only `send` may be called from another thread.

    Call `start` from the thread that stays with the job: the trainer dies with that thread.
    """

    def __init__(self, command: list[str], log: LogCapture, environ: Mapping[str, str] = os.environ) -> None:
        self._command = command
        self._log = log
        self._environ = {**child_environment(environ), "PYTHONUNBUFFERED": "1"}
        self._child: LaunchedChild[Channel] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, also the id of its process group and session; None before `start`."""
        return None if self._child is None else self._child.pid

    def start(self, message: Start) -> None:
        """Execute the command and hand it the job; raises OSError when it cannot be executed."""
        try:
            self._child = child = launch(Channel, self._command, self._environ, output=self._log.write_fd)
        finally:
            self._log.child_has_it()
        with contextlib.suppress(OSError, ValueError):
            score = Path(f"/proc/{child.pid}/oom_score_adj")
            score.write_text(f"{max(int(score.read_text()), OOM_SCORE_ADJUSTMENT)}\n")
        self.send(message)

    def send(self, message: Message) -> bool:
        """Hand over a message; False when the child is gone."""
        if self._child is None:
            return False
        try:
            return self._child.channel.send(message)
        except OSError:
            return False

    def receive(self, timeout: float, wakeup: Wakeup) -> Message | None:
        """The next message; None after `timeout` seconds, or once it was woken. EOFError when the child is gone.

        A child that is gone is noticed within `timeout` even if something it started holds its end of the channel.
        """
        assert self._child is not None, "start the child first"
        gone = self._child.ended
        message = self._child.channel.receive(0.0 if gone else timeout, wakeup=wakeup.fileno())
        if gone and message is None:
            raise EOFError("the child has ended")
        return message

    def terminate(self) -> None:
        """SIGTERM to the trainer itself."""
        if self._child is not None:
            self._child.terminate()

    def kill(self) -> None:
        """SIGKILL to the trainer's whole process group, which it shares with its own workers."""
        if self._child is not None:
            self._child.kill()

    def wait(self, timeout: float = EXIT_SECONDS) -> int:
        """The exit status (negative: signal); a child that has not left after `timeout` seconds is killed."""
        assert self._child is not None, "start the child first"
        return self._child.wait(timeout)

    def close(self) -> None:
        """Make sure that nothing of the child is left, and free the descriptors."""
        if self._child is not None:
            self._child.close()
