"""How long to wait before the next try of something that has failed: twice as long each time, up to a limit.

    backoff = Backoff(0.2, 5.0)
    while not attempt():
        stop.wait(backoff.next())
    backoff.reset()

Pure: nothing here waits. Leaves out: pauses of constant length, and how often somebody may try.
"""

from __future__ import annotations

_MOST_DOUBLINGS = 60
"""Beyond this every delay has reached its limit; the exponent stays small whatever the number of failures."""


def doubled(first: float, longest: float, times: int) -> float:
    """`first` seconds, doubled so many times, but not more than `longest`."""
    return min(longest, first * 2.0 ** min(max(0, times), _MOST_DOUBLINGS))


class Backoff:
    """The delays of one thing that is tried again and again; all durations in seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._failures = 0

    @property
    def failures(self) -> int:
        """Delays given since the last success."""
        return self._failures

    def next(self) -> float:
        """Count a failure and return the delay before the next try."""
        self._failures += 1
        return doubled(self._first, self._longest, self._failures - 1)

    def reset(self) -> None:
        """It has succeeded: the next delay is the first one again."""
        self._failures = 0
