"""Judges the progress of a trainer: the time it still needs, and whether it stands still although it is alive.

Both are pure: the caller passes the time of a monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

WINDOW_SECONDS = 60.0
"""The pace is that of the last minute or more."""
FACTOR = 10.0
WARM_UP = 20
"""Intervals before the median is believed; until then the limit of a phase holds."""


class ProgressMeter:
    """Newest step and total, and the time left.

    A training ends with its last step or with its time limit, whichever comes first; so does the remaining time.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.total_steps: int | None = None
        self._time_share = 0.0
        self._samples: deque[tuple[float, int, float]] = deque()

    def hear(self, step: int, total_steps: int, now: float, *, time_share: float = 0.0) -> None:
        """`step` of `total_steps` finished, `time_share` of a time limit used up (0 without one)."""
        self._time_share = time_share
        if self.step != step:
            self._samples.append((now, step, time_share))
            while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_SECONDS:
                self._samples.popleft()
        self.step, self.total_steps = step, total_steps

    def restart(self) -> None:
        """Forget the pace: time passed in which nothing could be done."""
        self._samples.clear()

    @property
    def steps_per_second(self) -> float | None:
        """None before the second step."""
        return self._pace(lambda sample: sample[1])

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the last step, or to the end of the time limit, at the present pace; None while it is unknown."""
        pace = self.steps_per_second
        if pace is None or self.step is None or self.total_steps is None:
            return None
        to_last_step = max(0, self.total_steps - self.step) / pace
        time_pace = self._pace(lambda sample: sample[2])
        return to_last_step if time_pace is None else min(to_last_step, max(0.0, 1.0 - self._time_share) / time_pace)

    def _pace(self, of: Callable[[tuple[float, int, float]], float]) -> float | None:
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        return (of(last) - of(first)) / (last[0] - first[0]) if last[0] > first[0] and of(last) > of(first) else None


class ProgressWatch:
    """Detects a trainer that is alive but makes no progress, from what the child says.

    Between steps: no progress for ten times the median interval so far (after 20 of them, never under a floor). In a
    named phase (compile, evaluation, checkpoint, …): a limit of its own. A suspended trainer is exempt. A trainer that
    waits for room on a disk reports its phase every few seconds, which restarts the limit.
    """

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
