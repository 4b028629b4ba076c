"""Time-outs that count only the time in which this process ran.

A process may be suspended: by SIGSTOP, in a frozen container, or on a sleeping laptop. When it continues, every
ordinary timer has expired before the process reads its sockets, and with such timers, work whose result has already
arrived would be cancelled. The functions here divide a wait into slices. Each slice counts with its nominal length,
however late it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_SLICES = 10
_CANCEL_SECONDS = 1.0
"""Seconds to wait for cancelled work to end."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`.

    Raises TimeoutError after `seconds`, not counting time in which the process was suspended.

    The work is cancelled on a time-out and when the caller is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        for _ in range(_SLICES):
            done, _pending = await asyncio.wait({task}, timeout=seconds / _SLICES)
            if done:
                return task.result()
    except asyncio.CancelledError:
        task.cancel()
        raise
    task.cancel()
    await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
    raise TimeoutError


class AwakeTimer:
    """Adds up the time between calls of `lap`; each lap counts for at most `max_lap` seconds."""

    def __init__(self, max_lap: float) -> None:
        self._max_lap = max_lap
        self._since = asyncio.get_running_loop().time()
        self.seconds = 0.0
        """The sum of all laps since the last `restart`."""

    def restart(self) -> None:
        """Set the sum to zero; the next lap begins now."""
        self._since = asyncio.get_running_loop().time()
        self.seconds = 0.0

    def lap(self) -> float:
        """Add the time since the last lap and return the sum."""
        now = asyncio.get_running_loop().time()
        self.seconds += min(now - self._since, self._max_lap)
        self._since = now
        return self.seconds
