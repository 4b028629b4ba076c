"""Ends a child whose supervisor has ended, and suspends a child whose lease may have expired.

The supervisor is the worker that started the child and renews the lease of its job. When the supervisor ends, the child
receives SIGKILL (PR_SET_PDEATHSIG) or reads end of file on the channel; each of the two ends the child. When the
supervisor does not renew the lease, for example because it is suspended, `LeaseGuard` suspends the child. Both
processes measure the age of the last renewal with `lease_clock`, which includes the time that the machine sleeps. For
example, after a laptop has slept for an hour the last renewal is an hour old, and the child waits until the worker has
renewed the lease. Only the database decides whether a lease has expired (`common.jobs.sql`).
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
    """Return the seconds since the machine was started, including sleep. All processes of a machine share this clock.

    This is CLOCK_BOOTTIME on Linux. Other systems use the monotonic clock, which may stop during sleep.
    """
    return time.clock_gettime(_CLOCK)


class LeaseGuard:
    """Decides before each micro-batch whether the child may continue, from the messages `ping` and `suspend`.

    A supervisor that is itself suspended (SIGSTOP, swapped out) sends neither; therefore the child also suspends itself
    `pause_after_seconds` after the last renewal.
    """

    def __init__(self, pause_after_seconds: float, renewed_at: float | None = None) -> None:
        """`renewed_at` is the `lease_clock()` at the last renewal before the child started; None means now."""
        self._pause_after = pause_after_seconds
        self._renewed_at = lease_clock() if renewed_at is None else renewed_at
        self._suspend_requested = False
        self._changed = threading.Condition()

    def handle(self, message: Message) -> None:
        """Process a message of the supervisor. All types except `ping` and `suspend` are ignored."""
        with self._changed:
            if isinstance(message, Ping):
                self._renewed_at = max(self._renewed_at, message.renewed_at)
                self._suspend_requested = False
            elif isinstance(message, Suspend):
                self._suspend_requested = True
            self._changed.notify_all()

    def suspended(self) -> bool:
        """Return whether the child must wait, because its lease may have expired."""
        return self._suspend_requested or lease_clock() - self._renewed_at > self._pause_after

    def wait(self) -> None:
        """Block while `suspended` returns True."""
        with self._changed:
            while self.suspended():
                self._changed.wait()


def die_with_parent(environ: Mapping[str, str] = os.environ) -> None:
    """Let Linux kill this process when the thread that started it ends. Exit if the parent has already ended.

    On other systems, and before this call, a child notices the end of its parent only by end of file on the channel.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    parent = environ.get(PARENT_PID_VARIABLE)
    if parent is not None and os.getppid() != int(parent):
        os._exit(EXIT_FAILED)
