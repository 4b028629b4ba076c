"""Decides which api processes and engines have died, by the subscriptions that they hold in Redis.

Every api process and every engine subscribes to its own channel (`keys.presence`) while it runs. When the process dies,
the kernel closes its connection, and Redis drops the subscription. The subscription remains if the process is idle,
suspended or slow, or if all keys are deleted. A key with a time to live would not work, because it would expire while a
process is suspended, and FLUSHALL would delete it. `PUBSUB NUMSUB` counts the subscribers; nothing is ever published.

A process counts as dead when it was present before and absent in several checks in a row. An interruption of the
observer's own subscription (Redis was restarted or did not answer) may have affected all other processes too. The
observer then discards its results, and reports a process as dead only after it was seen present again. This module
makes no connection to Redis; its callers make the queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MISSES = 2
"""Number of successive checks in which a process must be absent to count as dead. A single absence may mean only that a
connection broke."""


class AbsenceDetector:
    """Decides which processes have died. Checks are due every `seconds` seconds. Use it from one thread."""

    def __init__(self, seconds: float, misses: int = MISSES) -> None:
        self._seconds = seconds
        self._misses = misses
        self._checked_at = float("-inf")
        self._subscription: int | None = None
        self._missed: dict[str, int | None] = {}
        """{process: number of successive checks in which it was absent, or None if it was never present}."""

    def due(self, names: Iterable[str], now: float) -> bool:
        """Return whether a check is due: the last one was `seconds` ago, or one of `names` was never checked."""
        names = set(names)
        return bool(names) and (now - self._checked_at >= self._seconds or not names <= self._missed.keys())

    def record_check(self, present: Mapping[str, bool], subscription: int | None, now: float) -> set[str]:
        """Process the result of a check and return the processes that are dead.

        `present` is {process: whether it was subscribed} for all processes that were checked; processes that are
        missing from it are forgotten. `subscription` is the number of times that the observer has subscribed since its
        start, or None while it is not subscribed.
        """
        outdated = now - self._checked_at > 3 * self._seconds
        if outdated or subscription is None or subscription != self._subscription:
            self._missed = {}
        self._checked_at, self._subscription = now, subscription
        missed: dict[str, int | None] = {}
        for name, is_present in present.items():
            before = self._missed.get(name)
            missed[name] = 0 if is_present else None if before is None else before + 1
        self._missed = missed
        return {name for name, times in missed.items() if times is not None and times >= self._misses}
