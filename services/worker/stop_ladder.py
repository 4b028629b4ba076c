"""From a wish to its end: ask, wait, SIGTERM, wait, SIGKILL.

    pause, stop   ask · stop grace · SIGTERM · kill grace · SIGKILL
                  (a pause: from the first step on; before it there is nothing to keep but the preparation itself)
    cancel        ask · stop grace · SIGKILL
    drain         ask · drain time · SIGKILL
    complete      ask only: evaluation and final files take as long as they take

Pure: the caller gives the time and carries out what `step` says.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

Request = Literal["pause", "complete", "stop", "drain"]
_SEVERITY: dict[Request, int] = {"pause": 1, "complete": 2, "drain": 3, "stop": 4}


class Action(Enum):
    """What to do to the child now."""

    ASK = auto()
    TERMINATE = auto()
    KILL = auto()


class StopLadder:
    """Durations in seconds; `now` is a monotonic clock."""

    def __init__(self, *, stop_grace: float, kill_grace: float, drain_grace: float) -> None:
        self._stop_grace, self._kill_grace, self._drain_grace = stop_grace, kill_grace, drain_grace
        self.request: Request | None = None
        self._asked = True
        self._timed = False
        self._terminate_at: float | None = None
        self._kill_at: float | None = None

    def want(self, request: Request, now: float, *, cancel: bool = False, stepping: bool = True) -> None:
        """A wish was heard. A milder one than the present is ignored; a repeated one moves no deadline later.

        `stepping`: the child has come to its first step; until then a pause is asked for and has no deadline. Repeat
        the wish for as long as it stands.
        """
        if self.request is None or _SEVERITY[request] > _SEVERITY[self.request]:
            self.request = request
            self._asked = self._timed = False
            self._terminate_at = None
            if request == "complete":
                self._kill_at = None
        if request == self.request and not self._timed and (request == "stop" or (request == "pause" and stepping)):
            self._timed = True
            self._terminate_at = now + self._stop_grace
            self._kill_at = self._sooner(now + self._stop_grace + self._kill_grace)
        if request == "drain":
            self._kill_at = self._sooner(now + self._drain_grace)
        if cancel and self._terminate_at is not None:
            self._kill_at = self._sooner(self._terminate_at)
            self._terminate_at = None

    def step(self, now: float) -> Action | None:
        """The next thing to do, each once (KILL for as long as it takes)."""
        if not self._asked:
            self._asked = True
            return Action.ASK
        if self._kill_at is not None and now >= self._kill_at:
            return Action.KILL
        if self._terminate_at is not None and now >= self._terminate_at:
            self._terminate_at = None
            return Action.TERMINATE
        return None

    @property
    def next_at(self) -> float | None:
        """When `step` has something to do next; None: when another wish is heard."""
        if not self._asked:
            return 0.0
        return min((at for at in (self._terminate_at, self._kill_at) if at is not None), default=None)

    def _sooner(self, deadline: float) -> float:
        return deadline if self._kill_at is None else min(self._kill_at, deadline)
