"""Detects a trainer that is alive but makes no progress.

Between steps: no progress for ten times the median interval so far (after 20 of them, never under a floor). In a named
phase (compile, evaluation, checkpoint, …): a limit of its own. A suspended trainer is exempt. A trainer that waits for
room on a disk reports its phase every few seconds, which restarts the limit. Pure: the caller passes the time.
"""

from __future__ import annotations

from collections import deque
from statistics import median

FACTOR = 10.0
WARM_UP = 20
"""Intervals before the median is believed; until then the limit of a phase holds."""


class ProgressWatch:
    """Fed with what the child says; `now` is a monotonic clock in seconds."""

    def __init__(self, now: float, *, floor_seconds: float, phase_seconds: float) -> None:
        self._floor, self._phase_limit = floor_seconds, phase_seconds
        self._intervals: deque[float] = deque(maxlen=200)
        self._heard_at = now
        self._stepping = False

    def progress(self, now: float) -> None:
        """A micro-batch was finished."""
        if self._stepping:
            self._intervals.append(now - self._heard_at)
        self._stepping = True
        self._heard_at = now

    def phase(self, name: str, now: float) -> None:
        """The child entered a phase."""
        self._stepping = False
        self._heard_at = now

    def excuse(self, now: float) -> None:
        """The child is suspended: its silence is ours."""
        self._heard_at = now

    def limit(self) -> float:
        """Seconds of silence allowed now."""
        if not self._stepping or len(self._intervals) < WARM_UP:
            return self._phase_limit
        return max(self._floor, FACTOR * median(self._intervals))

    def overdue(self, now: float) -> bool:
        """Whether the silence has lasted too long."""
        return now > self.overdue_at

    @property
    def overdue_at(self) -> float:
        """When the present silence will have lasted too long."""
        return self._heard_at + self.limit()
