"""How the api and the engines learn that the other side has died: a subscription that each process holds in Redis.

Every api process and every engine subscribes to a channel of its own (`keys.presence`) as long as it lives. Redis drops
the subscription when the process dies, because the kernel closes its connection, and at no other time: not when the
process is idle, suspended or slow, and not when the keys are deleted. A key with a time to live would say "dead" of a
process that was suspended, and of every process after a FLUSHALL. `PUBSUB NUMSUB` counts the subscribers; nothing is
ever published.

A process counts as gone when it was present before and absent in several looks in a row. When the observer's own
subscription was interrupted (Redis was restarted or did not answer), everybody else's may have been too: the observer
then forgets what it has seen, and judges nobody until it has seen them again. Leaves out: asking Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MISSES = 2
"""Looks in a row in which a process must be absent; it may lose its connection for a moment."""


class Absences:
    """Judges who is gone. Use from one thread; `seconds` lie between two looks."""

    def __init__(self, seconds: float, misses: int = MISSES) -> None:
        self._seconds = seconds
        self._misses = misses
        self._looked_at = float("-inf")
        self._subscription: int | None = None
        self._missed: dict[str, int | None] = {}
        """Looks in a row without each process; None: it was never seen."""

    def due(self, names: Iterable[str], now: float) -> bool:
        """Whether to look now: it is time, or somebody was never looked for."""
        names = set(names)
        return bool(names) and (now - self._looked_at >= self._seconds or not names <= self._missed.keys())

    def look(self, present: Mapping[str, bool], subscription: int | None, now: float) -> set[str]:
        """Take in a look and return those that are gone.

        `present` holds all that were asked for; the others are forgotten. `subscription` is the number of the
        observer's own subscription, counted from its start, or None while it has none.
        """
        old = now - self._looked_at > 3 * self._seconds
        if old or subscription is None or subscription != self._subscription:
            self._missed = {}
        self._looked_at, self._subscription = now, subscription
        missed: dict[str, int | None] = {}
        for name, there in present.items():
            before = self._missed.get(name)
            missed[name] = 0 if there else None if before is None else before + 1
        self._missed = missed
        return {name for name, times in missed.items() if times is not None and times >= self._misses}
