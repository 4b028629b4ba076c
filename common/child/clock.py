"""The clock by which a worker and its trainer age a lease between two renewals.

It counts the time a machine sleeps: after a laptop's lid was closed, or a virtual machine paused, for an hour, the last
renewal is an hour old and the trainer stands still until the database has spoken. Whether a lease has lapsed is judged
by the database alone (`common.jobs.clock`).
"""

from __future__ import annotations

import time
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Seconds since the machine was started, sleep included; one clock for all processes of a machine.

    Source: CLOCK_BOOTTIME of Linux. Elsewhere the monotonic clock, which may stand still during sleep.
    """
    return time.clock_gettime(_CLOCK)
