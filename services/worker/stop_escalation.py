"""The escalation of a stop request: the supervisor sends the request to the trainer, then SIGTERM, then SIGKILL.

    pause, stop   request, stop grace, SIGTERM, kill grace, SIGKILL
                  (the deadlines of a pause begin with the first training step)
    cancel        request, stop grace, SIGKILL
    drain         request, drain grace, SIGKILL
    complete      request only: evaluation and final files have no time limit

The class `StopEscalation` neither reads a clock nor sends signals. The caller passes the time, and executes the actions
that `next_action` returns.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

RequestKind = Literal["pause", "complete", "stop", "drain"]
_SEVERITY: dict[RequestKind, int] = {"pause": 1, "complete": 2, "drain": 3, "stop": 4}


class StopAction(Enum):
    """The next action of the supervisor."""

    SEND_REQUEST = auto()
    TERMINATE = auto()
    KILL = auto()


class StopEscalation:
    """The state of the escalation for one trainer.

    `now` is the time of a monotonic clock; all durations are in seconds.
    """

    def __init__(self, *, stop_grace: float, kill_grace: float, drain_grace: float) -> None:
        self._stop_grace, self._kill_grace, self._drain_grace = stop_grace, kill_grace, drain_grace
        self.requested: RequestKind | None = None
        """The most severe request so far; None before the first one."""
        self._request_sent = True
        self._has_deadline = False
        self._terminate_at: float | None = None
        self._kill_at: float | None = None

    def request(self, request: RequestKind, now: float, *, cancel: bool = False, stepping: bool = True) -> None:
        """Record a request. The supervisor calls this repeatedly while the desired state is unchanged.

        A request that is milder than an earlier one is ignored, except that a drain always sets its deadline. A
        repeated request never moves a deadline to a later time. `stepping` is true once the child has reached its
        first training step; until then, a pause has no deadline.
        """
        if self.requested is None or _SEVERITY[request] > _SEVERITY[self.requested]:
            self.requested = request
            self._request_sent = self._has_deadline = False
            self._terminate_at = None
            if request == "complete":
                self._kill_at = None
        if (
            request == self.requested
            and not self._has_deadline
            and (request == "stop" or (request == "pause" and stepping))
        ):
            self._has_deadline = True
            self._terminate_at = now + self._stop_grace
            self._kill_at = self._earlier(now + self._stop_grace + self._kill_grace)
        if request == "drain":
            self._kill_at = self._earlier(now + self._drain_grace)
        if cancel and self._terminate_at is not None:
            self._kill_at = self._earlier(self._terminate_at)
            self._terminate_at = None

    def next_action(self, now: float) -> StopAction | None:
        """Return the action that is due at `now`, or None.

        Each action is returned once, but KILL is returned repeatedly.
        """
        if not self._request_sent:
            self._request_sent = True
            return StopAction.SEND_REQUEST
        if self._kill_at is not None and now >= self._kill_at:
            return StopAction.KILL
        if self._terminate_at is not None and now >= self._terminate_at:
            self._terminate_at = None
            return StopAction.TERMINATE
        return None

    @property
    def next_deadline(self) -> float | None:
        """Time of the next action; None if only a further request can cause one."""
        if not self._request_sent:
            return 0.0
        return min((at for at in (self._terminate_at, self._kill_at) if at is not None), default=None)

    def _earlier(self, deadline: float) -> float:
        return deadline if self._kill_at is None else min(self._kill_at, deadline)
