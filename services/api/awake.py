"""Time-outs that count only the time in which this process ran.

A process that is suspended (SIGSTOP, a laptop that sleeps, a frozen container) finds every ordinary timer expired when
it goes on, before it has read what lies in its sockets, and would give up on work that is done. Here a wait is cut into
slices, and a slice counts once, however late it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_SLICES = 10
_CANCEL_SECONDS = 1.0
"""What cancelled work has to end; it is left alone afterwards."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; raise TimeoutError after `seconds` in which the event loop could have received it.

    The work is cancelled on a time-out, and when the caller is cancelled.
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
    """Adds up waits; a single one counts for `most` seconds at most."""

    def __init__(self, max_lap: float) -> None:
        self._max_lap = max_lap
        self._since = asyncio.get_running_loop().time()
        self.seconds = 0.0
        """The sum so far."""

    def restart(self) -> None:
        """Forget the sum; the next wait begins now."""
        self._since = asyncio.get_running_loop().time()
        self.seconds = 0.0

    def lap(self) -> float:
        """Add the time since the last lap and return the sum."""
        now = asyncio.get_running_loop().time()
        self.seconds += min(now - self._since, self._max_lap)
        self._since = now
        return self.seconds
