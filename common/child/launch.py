"""Starts a child process with a socketpair to it, and ends it together with everything that it has started.

    child = launch(Channel, command, environ)        # `Channel` is the protocol; raises OSError
    child.channel.send(...)
    status = child.wait(5.0)                         # kills the child when it has not left by then
    child.close()

The child leads a session and a process group of its own. It finds its end of the socketpair and its parent's process
id in its environment, and asks for SIGKILL at the death of the thread that started it
(`common.child.lifeline.die_with_parent`): call `launch` from a thread that outlives the child. Leaves out: what is said
over the channel (`common.child.protocol`, `services.generator.engine_protocol`), when a child is asked to stop, and
the services of a local stack, which have no channel (`services.local.child`).
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
    """A child that was started; its methods may be called from any thread."""

    def __init__(self, process: subprocess.Popen[bytes], channel: ChannelT) -> None:
        self._process = process
        self.channel = channel
        """The parent's end of the socketpair."""

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group and session."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the child itself has ended; what it has started may live on."""
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Send SIGTERM to the child itself."""
        if not self.ended:
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the child and to everything in its process group."""
        kill_group(self.pid)

    def wait(self, seconds: float) -> int:
        """Return the exit status (negative: signal); kill the child when it has not left after `seconds`."""
        return wait_or_kill(self._process, seconds)

    def close(self) -> None:
        """Make sure that nothing of the child is left, and close the channel."""
        # The group outlives its leader when processes that the child has started do.
        self.kill()
        self._process.wait()
        self.channel.close()


def launch(
    channel: type[ChannelT], command: Sequence[str], environ: Mapping[str, str], *, output: int | None = None
) -> LaunchedChild[ChannelT]:
    """Execute `command` with these environment variables and one end of a new socketpair.

    `output` is a descriptor for standard output and error; without it the child writes where this process does.
    Raises OSError when the command cannot be executed.
    """
    ours, theirs = channel.pair()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env={**environ, CHILD_FD_VARIABLE: str(theirs.fileno()), PARENT_PID_VARIABLE: str(os.getpid())},
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return LaunchedChild(process, ours)


def wait_or_kill(process: subprocess.Popen[Any], seconds: float) -> int:
    """Return the exit status (negative: signal); a process that has not left after `seconds` is killed.

    A process that leads a process group is killed together with its group.
    """
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        process.kill()
        return process.wait()


def kill_group(leader: int) -> None:
    """Send SIGKILL to the process group that `leader` leads; nothing happens when there is none."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def describe_exit(status: int) -> str:
    """`exit code 1`, `SIGKILL`, `signal 70`; `status` as `subprocess` gives it."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
