"""Estimates the remaining time of a trainer, and detects a trainer that is alive but makes no progress.

The classes read no clock: the caller passes the time of a monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

WINDOW_SECONDS = 60.0
"""Minimum length of the window over which the pace is measured."""
FACTOR = 10.0
"""Longest time without a message between steps, as a multiple of the median interval between messages."""
WARM_UP = 20
"""Number of intervals from which the median is used; before that, the limit of a phase applies."""


class ProgressMeter:
    """Holds the newest step and the number of steps, and estimates the remaining time.

    A training ends after its last step or at its time limit; the estimate uses the earlier of the two.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.total_steps: int | None = None
        self._time_share = 0.0
        self._samples: deque[tuple[float, int, float]] = deque()

    def record(self, step: int, total_steps: int, now: float, *, time_share: float = 0.0) -> None:
        """Record a finished step and the `time_share` of the time limit that is used (0 without a limit)."""
        self._time_share = time_share
        if self.step != step:
            self._samples.append((now, step, time_share))
            while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_SECONDS:
                self._samples.popleft()
        self.step, self.total_steps = step, total_steps

    def restart(self) -> None:
        """Forget the pace, because the trainer could not work in the meantime."""
        self._samples.clear()

    @property
    def steps_per_second(self) -> float | None:
        """Steps per second within the window; None before the second step."""
        return self._pace(lambda sample: sample[1])

    @property
    def eta_seconds(self) -> float | None:
        """Estimated seconds to the last step or to the end of the time limit; None while the pace is unknown."""
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

    Between steps the limit is `FACTOR` times the median interval so far, but at least `floor_seconds`. In a phase
    (compile, evaluation, checkpoint, …), and until `WARM_UP` intervals are known, it is `phase_seconds`. While the
    trainer is suspended, the limit does not apply. A trainer that waits for free disk space reports its phase every few
    seconds, which restarts the limit.
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
        """Restart the limit, because the worker has suspended the child."""
        self._last_message_at = now

    def limit(self) -> float:
        """Return the longest time without a message that is allowed now, in seconds."""
        if not self._stepping or len(self._intervals) < WARM_UP:
            return self._phase_limit
        return max(self._floor, FACTOR * median(self._intervals))

    def overdue(self, now: float) -> bool:
        """Return whether the trainer has sent no message for longer than the limit."""
        return now > self.overdue_at

    @property
    def overdue_at(self) -> float:
        """Time at which the trainer becomes overdue if it sends no message until then."""
        return self._last_message_at + self.limit()
