"""Estimates the remaining time of a trainer, and detects a trainer that is alive but makes no progress.

The classes do not read a clock. The caller passes the time of a monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

WINDOW_SECONDS = 60.0
"""Minimum length in seconds of the interval over which the pace is measured."""
FACTOR = 10.0
"""Between steps, a trainer is overdue after this multiple of the median interval between its messages."""
WARM_UP = 20
"""Number of measured intervals needed to compute the limit between steps; until then, the limit for a phase applies."""


class ProgressMeter:
    """Stores the newest step and the total number of steps, and estimates the remaining time.

    A training ends after its last step or when its time limit has passed; the estimate is the time to the earlier of
    the two.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.total_steps: int | None = None
        self._time_share = 0.0
        self._samples: deque[tuple[float, int, float]] = deque()

    def record(self, step: int, total_steps: int, now: float, *, time_share: float = 0.0) -> None:
        """Record a finished step.

        `time_share` is the share of the training's time limit that has passed; 0 without a time limit.
        """
        self._time_share = time_share
        if self.step != step:
            self._samples.append((now, step, time_share))
            while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_SECONDS:
                self._samples.popleft()
        self.step, self.total_steps = step, total_steps

    def restart(self) -> None:
        """Forget the pace. Call this when the trainer could not work for a while."""
        self._samples.clear()

    @property
    def steps_per_second(self) -> float | None:
        """Steps per second over the last minute or more; None until there are two different steps."""
        return self._pace(lambda sample: sample[1])

    @property
    def eta_seconds(self) -> float | None:
        """Estimated seconds to the end: the last step or the time limit. None while the pace is unknown."""
        pace = self.steps_per_second
        if pace is None or self.step is None or self.total_steps is None:
            return None
        to_last_step = max(0, self.total_steps - self.step) / pace
        time_pace = self._pace(lambda sample: sample[2])
        return to_last_step if time_pace is None else min(to_last_step, max(0.0, 1.0 - self._time_share) / time_pace)

    def _pace(self, quantity: Callable[[tuple[float, int, float]], float]) -> float | None:
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        gained, seconds = quantity(last) - quantity(first), last[0] - first[0]
        return gained / seconds if seconds > 0 and gained > 0 else None


class ProgressWatch:
    """Detects a trainer that is alive but makes no progress, by the time since its last message.

    Between steps, the limit for this time is `FACTOR` times the median interval so far, but at least `floor_seconds`.
    During a phase (compile, evaluation, checkpoint, …), and until `WARM_UP` intervals have been measured, the limit is
    `phase_seconds`. There is no limit while the trainer is suspended. A trainer that waits for free disk space reports
    its phase every few seconds; each report restarts the time.
    """

    def __init__(self, now: float, *, floor_seconds: float, phase_seconds: float) -> None:
        self._floor, self._phase_limit = floor_seconds, phase_seconds
        self._intervals: deque[float] = deque(maxlen=200)
        self._last_message_at = now
        self._stepping = False

    def record_progress(self, now: float) -> None:
        """Record that a micro-batch was finished."""
        if self._stepping:
            self._intervals.append(now - self._last_message_at)
        self._stepping = True
        self._last_message_at = now

    def record_phase(self, name: str, now: float) -> None:
        """Record that the child entered a phase."""
        self._stepping = False
        self._last_message_at = now

    def restart_limit(self, now: float) -> None:
        """Count the time from `now` on instead of from the last message.

        The supervisor calls this repeatedly while the child is suspended.
        """
        self._last_message_at = now

    def limit(self) -> float:
        """Return the seconds without a message after which the trainer is overdue at present."""
        if not self._stepping or len(self._intervals) < WARM_UP:
            return self._phase_limit
        return max(self._floor, FACTOR * median(self._intervals))

    def overdue(self, now: float) -> bool:
        """Return whether the time since the last message exceeds `limit()`."""
        return now > self.overdue_at

    @property
    def overdue_at(self) -> float:
        """Time at which the trainer is overdue if no message arrives before."""
        return self._last_message_at + self.limit()
