"""Ends or suspends a child that has lost its supervisor: the death signal, and the child's view of the lease.

When the supervisor dies, PR_SET_PDEATHSIG and the end of file on the channel each end the child. When the supervisor is
only suspended, `Lifeline` suspends the child. Worker and child measure the age of the last renewal with `lease_clock`,
which includes the time that the machine sleeps. After an hour of sleep (a closed laptop, a paused virtual machine) the
last renewal is an hour old, so the trainer waits until the worker has renewed the lease. Only the database decides
whether a lease has expired (`common.jobs.sql`). Leaves out: the messages (`common.child.protocol`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Final

from common.child.protocol import EXIT_FAILED, Message, Ping, Suspend
from common.child.socket import PARENT_PID_VARIABLE

_PR_SET_PDEATHSIG = 1
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Return the seconds since the machine was started, including sleep; all processes of a machine share this clock.

    Reads CLOCK_BOOTTIME on Linux, elsewhere the monotonic clock, which may stop during sleep.
    """
    return time.clock_gettime(_CLOCK)


class Lifeline:
    """The child's view of the lease, updated by the messages `ping` and `suspend` and checked before each micro-batch.

    A suspended supervisor (SIGSTOP, swapped out) sends no messages, so the child also suspends itself without them.
    """

    def __init__(self, pause_after_seconds: float, renewed_at: float | None = None) -> None:
        """`renewed_at` comes from the message `start`, because the child may have started long after that renewal."""
        self._pause_after = pause_after_seconds
        self._renewed_at = lease_clock() if renewed_at is None else renewed_at
        self._held = False
        self._changed = threading.Condition()

    def handle(self, message: Message) -> None:
        """Process one message of the supervisor; all types except `ping` and `suspend` are ignored."""
        with self._changed:
            if isinstance(message, Ping):
                self._renewed_at = max(self._renewed_at, message.renewed_at)
                self._held = False
            elif isinstance(message, Suspend):
                self._held = True
            self._changed.notify_all()

    def suspended(self) -> bool:
        """Return whether the child must not continue now."""
        return self._held or lease_clock() - self._renewed_at > self._pause_after

    def wait(self) -> None:
        """Block until the child may continue; usually returns at once."""
        with self._changed:
            while self.suspended():
                self._changed.wait()


def die_with_parent(environ: Mapping[str, str] = os.environ) -> None:
    """Have Linux send SIGKILL when the thread that started this process ends; exit at once if the parent has ended.

    On other systems, and between fork and this call, only the end of file on the channel ends the child.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    parent = environ.get(PARENT_PID_VARIABLE)
    if parent is not None and os.getppid() != int(parent):
        os._exit(EXIT_FAILED)
