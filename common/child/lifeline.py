"""What ties a child to its supervisor: the death signal, and the lease as the child sees it, with the lease's clock.

Three things end a child whose supervisor is gone: PR_SET_PDEATHSIG, end of file on the channel, and a supervisor that
merely stands still suspends it through `Lifeline`. Worker and child age a lease between two renewals by `lease_clock`,
which counts the time a machine sleeps: after a laptop's lid was closed, or a virtual machine paused, for an hour, the
last renewal is an hour old and the trainer stands still until the database has spoken. Whether a lease has lapsed is
judged by the database alone (`common.jobs.sql`). Leaves out: the messages (`common.child.protocol`).
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
    """Seconds since the machine was started, sleep included; one clock for all processes of a machine.

    Source: CLOCK_BOOTTIME of Linux. Elsewhere the monotonic clock, which may stand still during sleep.
    """
    return time.clock_gettime(_CLOCK)


class Lifeline:
    """The child's view of the lease: fed with `ping` and `suspend`, asked before each micro-batch.

    A supervisor that stands still (SIGSTOP, swapped out) sends nothing, so silence alone suspends the child.
    """

    def __init__(self, pause_after_seconds: float, renewed_at: float | None = None) -> None:
        """`renewed_at`: as in `start`; a child that was slow to begin must not count from its own beginning."""
        self._pause_after = pause_after_seconds
        self._renewed_at = lease_clock() if renewed_at is None else renewed_at
        self._held = False
        self._changed = threading.Condition()

    def hear(self, message: Message) -> None:
        """Take in one message of the supervisor; others than the two are ignored."""
        with self._changed:
            if isinstance(message, Ping):
                self._renewed_at = max(self._renewed_at, message.renewed_at)
                self._held = False
            elif isinstance(message, Suspend):
                self._held = True
            self._changed.notify_all()

    def suspended(self) -> bool:
        """Whether the child must stand still now."""
        return self._held or lease_clock() - self._renewed_at > self._pause_after

    def wait(self) -> None:
        """Return once the child may act; returns at once in the ordinary case."""
        with self._changed:
            while self.suspended():
                self._changed.wait()


def die_with_parent(environ: Mapping[str, str] = os.environ) -> None:
    """Ask Linux for SIGKILL when the thread that started this process ends; exit at once if it already has.

    Elsewhere (and between fork and this call) end of file on the channel has to do.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    parent = environ.get(PARENT_PID_VARIABLE)
    if parent is not None and os.getppid() != int(parent):
        os._exit(EXIT_FAILED)
