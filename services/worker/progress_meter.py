"""Remaining time from the progress of the last minute or more. Pure: the caller gives the time."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 60.0


class ProgressMeter:
    """Newest step and total, and the time left."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.total_steps: int | None = None
        self._samples: deque[tuple[float, int]] = deque()

    def hear(self, step: int, total_steps: int, now: float) -> None:
        """`step` of `total_steps` finished; `now` is a monotonic clock in seconds."""
        if self.step != step:
            self._samples.append((now, step))
            while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_SECONDS:
                self._samples.popleft()
        self.step, self.total_steps = step, total_steps

    def restart(self) -> None:
        """Forget the pace: time passed in which nothing could be done."""
        self._samples.clear()

    @property
    def steps_per_second(self) -> float | None:
        """None before the second step."""
        if len(self._samples) < 2:
            return None
        (begin, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - begin) if end > begin and last > first else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the last step at the present pace; None while it is unknown."""
        pace = self.steps_per_second
        if pace is None or self.step is None or self.total_steps is None:
            return None
        return max(0, self.total_steps - self.step) / pace
