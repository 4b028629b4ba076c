"""Keeps the lease of one job, and reads the desired state that users have set.

One thread renews the lease every `lease_renew_seconds`. It reads the desired state every `desired_state_poll_seconds`,
and at once after a notification. Only the database decides whether the lease is still valid. The age of the last
renewal is measured with the lease clock, which is read before a renewal is sent. Reactions to a new desired state or a
lost lease are in `services.worker.supervisor`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from common.child.lease_guard import lease_clock
from common.config import Settings
from common.db import database_unavailable
from common.errors import LeaseLostError
from common.jobs.lease import RequestedState, read_requested_state, renew
from common.logging import get_logger

log = get_logger(__name__)

_RETRY_SECONDS = 1.0


class LeaseKeeper:
    """Renews the lease of one job in its own thread.

    `claimed_at` is the value of `lease_clock()` before the claim was sent. The thread calls `changed` after a renewal,
    after a change of the desired state, and after the loss of the lease.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        job_id: str,
        attempt: int,
        settings: Settings,
        *,
        claimed_at: float,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._sessions, self._job_id, self._attempt, self._settings = sessions, job_id, attempt, settings
        self._changed = changed
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._failing = False
        """Whether the newest access to the database has failed."""
        self.renewed_at = claimed_at
        """Value of `lease_clock()` before the last successful renewal was sent."""
        self.requested_state: RequestedState | None = None
        """The newest desired state; None before the first renewal."""
        self.lost = threading.Event()
        """Set once the lease is lost. From then on, another attempt may own the job."""
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread read the desired state now. Call this when the state may have changed."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread and wait until it has ended."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        first = True
        while not self._stop.is_set() and not self.lost.is_set():
            began = lease_clock()
            try:
                if first or began - self.renewed_at >= self._settings.lease_renew_seconds:
                    with self._sessions.begin() as session:
                        requested = renew(session, self._job_id, self._attempt, self._settings).requested_state
                    self.renewed_at = began
                    first = False
                    self._update_requested_state(requested, renewed=True)
                else:
                    with self._sessions.begin() as session:
                        requested = read_requested_state(session, self._job_id, self._attempt)
                    self._update_requested_state(requested, renewed=False)
                self._log_recovery()
                due = self.renewed_at + self._settings.lease_renew_seconds - lease_clock()
                pause = max(0.0, min(self._settings.desired_state_poll_seconds, due))
            except LeaseLostError as error:
                log.warning("the lease was lost", error=error.message)
                self.lost.set()
                self._changed()
                return
            except Exception as error:
                # The thread must keep trying, because without renewals the trainer suspends itself and the reaper
                # requeues the job.
                self._log_outage(error)
                pause = _RETRY_SECONDS
            self._wake.wait(pause)
            self._wake.clear()

    def _update_requested_state(self, requested: RequestedState, *, renewed: bool) -> None:
        before, self.requested_state = self.requested_state, requested
        if (
            renewed
            or before is None
            or (before.desired_state, before.cancel_requested)
            != (
                requested.desired_state,
                requested.cancel_requested,
            )
        ):
            self._changed()

    def _log_recovery(self) -> None:
        if self._failing:
            log.info("the database answers the lease keeper again")
        self._failing = False

    def _log_outage(self, error: Exception) -> None:
        if not database_unavailable(error):
            log.error("the lease keeper failed", exc_info=error)
        elif not self._failing:
            message = "the database does not answer the lease keeper; the lease may expire"
            log.warning(message, error=str(error).splitlines()[0])
        self._failing = True
