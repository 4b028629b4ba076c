"""Remaining time from the progress of the last minute or more. Pure: the caller gives the time.

A training ends with its last step or with its time limit, whichever comes first; so does the remaining time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 60.0


class ProgressMeter:
    """Newest step and total, and the time left."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.total_steps: int | None = None
        self._time_share = 0.0
        self._samples: deque[tuple[float, int, float]] = deque()

    def hear(self, step: int, total_steps: int, now: float, *, time_share: float = 0.0) -> None:
        """`step` of `total_steps` finished, `time_share` of a time limit used up (0 without one).

        `now` is a monotonic clock in seconds.
        """
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
