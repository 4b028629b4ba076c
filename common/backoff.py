"""Exponential backoff: the delay before the next attempt doubles after each failure, up to a limit.

    backoff = Backoff(0.2, 5.0)
    while not attempt():
        stop.wait(backoff.next())
    backoff.reset()

This module only computes delays; the caller waits. It adds no jitter and does not limit the number of attempts.
"""

from __future__ import annotations

_MOST_DOUBLINGS = 60
"""Largest number of doublings that are computed, so that the power is a finite float after any number of failures."""


def doubled(first: float, longest: float, times: int) -> float:
    """Return `first` (in seconds) doubled `times` times, but not more than `longest`."""
    return min(longest, first * 2.0 ** min(max(0, times), _MOST_DOUBLINGS))


class Backoff:
    """Counts the failures of one operation and computes its delays; all durations are in seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._failures = 0

    @property
    def failures(self) -> int:
        """Return the number of failures since the last call of `reset`."""
        return self._failures

    def next(self) -> float:
        """Count a failure and return the delay before the next attempt."""
        self._failures += 1
        return doubled(self._first, self._longest, self._failures - 1)

    def reset(self) -> None:
        """Record a success, after which the next delay is `first` again."""
        self._failures = 0
