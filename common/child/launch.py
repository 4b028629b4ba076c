"""Starts a child process that is connected by a socketpair, and ends it together with all processes it has started.

    child = launch(Channel, command, environ) # `Channel` is a subclass of ChildSocket; may raise OSError
    child.channel.send(...)
    status = child.wait(5.0)                         # kills the child if it has not exited by then
    child.close()

The child leads its own session and process group. Environment variables contain the descriptor of the child's end of
the socketpair and the process id of its parent. If the child calls `common.child.lease_guard.die_with_parent`, the
kernel kills it when the thread that started it ends. Call `launch` from a thread that outlives the child. The messages
on the channel are in `common.child.protocol` and `services.generator.engine_protocol`. The services of a local stack
have no channel (`services.local.child`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from common.child.socket import CHILD_FD_VARIABLE, PARENT_PID_VARIABLE, ChildSocket

ChannelT = TypeVar("ChannelT", bound=ChildSocket)


class LaunchedChild(Generic[ChannelT]):
    """A child process and the channel to it. All methods may be called from any thread."""

    def __init__(self, process: subprocess.Popen[bytes], channel: ChannelT) -> None:
        self._process = process
        self.channel = channel
        """The parent's end of the socketpair."""

    @property
    def pid(self) -> int:
        """Process id of the child, which is also the id of its process group and session."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the child itself has ended; processes that it has started may still run."""
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Send SIGTERM to the child, but not to the processes that it has started."""
        if not self.ended:
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to all processes in the process group of the child."""
        kill_group(self.pid)

    def wait(self, seconds: float) -> int:
        """Wait for the child and return its exit status (-N for signal N).

        If the child has not exited after `seconds`, kill its process group.
        """
        return wait_or_kill(self._process, seconds)

    def close(self) -> None:
        """Kill the child and all processes it has started, and close the channel."""
        # Processes that the child has started may still be in its process group, even if the child has ended.
        self.kill()
        self._process.wait()
        self.channel.close()


def launch(
    channel: type[ChannelT], command: Sequence[str], environ: Mapping[str, str], *, output: int | None = None
) -> LaunchedChild[ChannelT]:
    """Start `command` with the environment `environ` and one end of a new socketpair.

    `output` is a descriptor for the child's standard output and error, which are inherited by default.
    Raises OSError when the command cannot be executed.
    """
    parent_end, child_end = channel.pair()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[child_end.fileno()],
            start_new_session=True,
            env={**environ, CHILD_FD_VARIABLE: str(child_end.fileno()), PARENT_PID_VARIABLE: str(os.getpid())},
        )
    except BaseException:
        parent_end.close()
        raise
    finally:
        child_end.close()
    return LaunchedChild(process, parent_end)


def wait_or_kill(process: subprocess.Popen[Any], seconds: float) -> int:
    """Wait for the process and return its exit status (-N for signal N).

    If the process has not exited after `seconds`, kill it, or its whole process group if it leads one.
    """
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        process.kill()
        return process.wait()


def kill_group(leader: int) -> None:
    """Send SIGKILL to the process group with the id `leader`; do nothing if the group does not exist."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def describe_exit(status: int) -> str:
    """Return a text such as `exit code 1`, `SIGKILL` or `signal 70` for a `returncode` of `subprocess`."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
