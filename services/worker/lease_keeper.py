"""Keeps the lease of one job and reads the desired state that users set.

One thread renews the lease every `lease_renew_seconds` and reads the desired state every `desired_state_poll_seconds`, or at
once after a notification. Only the database decides whether the lease is valid; the lease clock, read before a renewal
is sent, gives the age of the last renewal. Leaves out: reactions to a new desired state or a lost lease
(`services.worker.supervisor`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from common.child.lifeline import lease_clock
from common.config import Settings
from common.db import database_away
from common.errors import LeaseLostError
from common.jobs.lease import RequestedState, read_requested_state, renew
from common.logging import get_logger

log = get_logger(__name__)

_RETRY_SECONDS = 1.0


class LeaseKeeper:
    """`claimed_at` is the value of `lease_clock()` before the claim was sent.

    `changed` is called from the keeper's thread after a renewal, a change of the desired state or the loss of the
    lease.
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
        self._trouble = False
        self.renewed_at = claimed_at
        """Time of `lease_clock` before the last successful renewal was sent."""
        self.requested: RequestedState | None = None
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin renewing."""
        self._thread.start()

    def wake(self) -> None:
        """Read the desired state now, because it may have changed."""
        self._wake.set()

    def stop(self) -> None:
        """Stop renewing."""
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
                        wish = renew(session, self._job_id, self._attempt, self._settings).requested
                    self.renewed_at = began
                    first = False
                    self._hear(wish, renewed=True)
                else:
                    with self._sessions.begin() as session:
                        wish = read_requested_state(session, self._job_id, self._attempt)
                    self._hear(wish, renewed=False)
                self._well()
                due = self.renewed_at + self._settings.lease_renew_seconds - lease_clock()
                pause = max(0.0, min(self._settings.desired_state_poll_seconds, due))
            except LeaseLostError as error:
                log.warning("lease lost", error=error.message)
                self.lost.set()
                self._changed()
                return
            except Exception as error:
                # Without a renewal the trainer is suspended and the reaper acts; the thread must live to heal that.
                self._ill(error)
                pause = _RETRY_SECONDS
            self._wake.wait(pause)
            self._wake.clear()

    def _hear(self, wish: RequestedState, *, renewed: bool) -> None:
        before, self.requested = self.requested, wish
        if (
            renewed
            or before is None
            or (before.desired_state, before.cancel_requested)
            != (
                wish.desired_state,
                wish.cancel_requested,
            )
        ):
            self._changed()

    def _well(self) -> None:
        if self._trouble:
            log.info("database answers again")
        self._trouble = False

    def _ill(self, error: Exception) -> None:
        if not database_away(error):
            log.error("lease not renewed", exc_info=error)
        elif not self._trouble:
            log.warning("lease not renewed, database away", error=str(error).splitlines()[0])
        self._trouble = True
