"""The reaper: marks jobs whose lease has expired as stale, and requeues or ends those that stay stale.

    active, lease expired                                  → stale
    stale, quarantine (counted from the lease's end) over  → cancelled (stop requested), pending, or
                                                             failed with `worker_lost` (retry budget used up)

The quarantine (`quarantine_seconds`) is the time in which the worker may still recover a stale job by renewing its
lease. The reaper acts only after the lease has expired, and compares attempts under row locks. After the database was
unavailable, or the reaper itself was suspended, the reaper does nothing until the database has answered without a break
for `reaper_contact_seconds`. In such an outage, the workers were probably cut off as well, and need this time to renew
their leases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from common.child.lease_guard import lease_clock
from common.config import Settings
from common.db import Job, database_unavailable
from common.errors import TidalError
from common.jobs.changes import move
from common.jobs.retry import Fault, decide_job_retry
from common.jobs.sql import now_plus, seconds
from common.jobs.status import StatusWriter
from common.logging import get_logger
from tidal_client.vocabulary import ACTIVE, DesiredState, JobStatus

BATCH = 200
SLOW_MAINTENANCE_SECONDS = 15.0
"""Longest duration in seconds of a maintenance pass (`common.jobs.maintenance`), reached while Redis does not
answer."""

log = get_logger(__name__)
T = TypeVar("T")


class DatabaseContact:
    """Measures how long the database has answered without a break. Its clock also counts the time of system sleep.

    A new process begins at zero, because it does not know what happened before its start. A process that was suspended
    (a sleeping machine, a paused container) also begins at zero, because the owners of the leases may have been
    suspended too.
    """

    def __init__(self, max_gap_seconds: float, clock: Callable[[], float] = lease_clock) -> None:
        """Begin with no recorded answer. A gap of more than `max_gap_seconds` between two answers is a break."""
        self._max_gap = max_gap_seconds
        self._clock = clock
        self._since: float | None = None
        self._last = 0.0

    def record_answer(self) -> None:
        """Record that the database has just answered."""
        now = self._clock()
        if self._since is None or now - self._last > self._max_gap:
            self._since = now
        self._last = now

    def record_outage(self) -> None:
        """Record that the database did not answer."""
        self._since = None

    def settled(self, wanted_seconds: float) -> bool:
        """Return whether the database has answered without a break for `wanted_seconds` until now."""
        now = self._clock()
        return self._since is not None and now - self._since >= wanted_seconds and now - self._last <= self._max_gap


def max_answer_gap(settings: Settings) -> float:
    """Return the longest normal time in seconds between two answers of the database, even while Redis is unavailable.

    With the default settings, an owner that was suspended for this time still has a good part of its lease left.
    """
    return max(2 * settings.reaper_seconds + SLOW_MAINTENANCE_SECONDS, settings.lease_seconds / 2)


@dataclass(frozen=True)
class Reaped:
    """The number of jobs that one pass of the reaper moved to each status."""

    stale: int = 0
    requeued: int = 0
    cancelled: int = 0
    failed: int = 0


def reap(session: Session, settings: Settings) -> Reaped:
    """Mark jobs with expired leases as stale, then requeue or end the stale jobs whose quarantine is over.

    The caller holds the maintenance lock and commits.
    """
    stale = mark_stale(session)
    outcomes = _apply_to_each(
        session, _past_quarantine(session, settings), lambda job: _end_or_requeue(session, job, settings)
    )
    return Reaped(
        stale=stale,
        requeued=outcomes.count(JobStatus.PENDING),
        cancelled=outcomes.count(JobStatus.CANCELLED),
        failed=outcomes.count(JobStatus.FAILED),
    )


def mark_stale(session: Session) -> int:
    """Mark at most BATCH active jobs whose lease has expired as stale; return the number of marked jobs.

    A job whose owner is writing to its row at this moment is skipped until the next pass.
    """
    expired_lease = (
        select(Job)
        .where(Job.status.in_(ACTIVE), Job.lease_expires_at < func.now())
        .order_by(Job.lease_expires_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )

    def mark(job: Job) -> bool:
        details = {"worker": job.lease_owner, "before": job.status}
        move(
            session,
            job,
            JobStatus.STALE,
            writer=StatusWriter.REAPER,
            event="stale",
            details=details,
            status_before_stale=job.status,
            stale_at=func.now(),
        )
        return True

    return len(_apply_to_each(session, session.scalars(expired_lease).all(), mark))


def _apply_to_each(session: Session, jobs: Iterable[Job], act: Callable[[Job], T]) -> list[T]:
    """Call `act` for each job and return the results. A job for which `act` raises an error is logged and skipped."""
    results: list[T] = []
    for job in jobs:
        job_id = job.id
        try:
            with session.begin_nested():
                results.append(act(job))
        except (ValueError, TidalError, DBAPIError) as error:
            if database_unavailable(error):
                raise
            log.exception("the reaper cannot move a job", job_id=job_id)
    return results


def _past_quarantine(session: Session, settings: Settings) -> list[Job]:
    expired = (
        select(Job)
        .where(
            Job.status == JobStatus.STALE,
            Job.lease_expires_at + seconds(settings.quarantine_seconds) < func.now(),
        )
        .order_by(Job.lease_expires_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return list(session.scalars(expired))


def _end_or_requeue(session: Session, job: Job, settings: Settings) -> JobStatus:
    details = {"reason": Fault.WORKER_LOST.value, "worker": job.lease_owner, "before": job.status_before_stale}
    if job.desired_state == DesiredState.STOP:
        target, event = JobStatus.CANCELLED, "cancelled"
        move(session, job, target, writer=StatusWriter.REAPER, event=event, details=details, progress_phase=None)
        return target
    decision = decide_job_retry(Fault.WORKER_LOST, job, settings)
    if decision.retry:
        not_before = now_plus(decision.delay_seconds) if decision.delay_seconds else job.not_before
        move(
            session,
            job,
            JobStatus.PENDING,
            writer=StatusWriter.REAPER,
            event="restarted",
            details=details,
            infra_restarts=decision.infra_restarts,
            not_before=not_before,
            progress_phase=None,
        )
        return JobStatus.PENDING
    move(
        session,
        job,
        JobStatus.FAILED,
        writer=StatusWriter.REAPER,
        event="failed",
        details=details,
        infra_restarts=decision.infra_restarts,
        error_code=Fault.WORKER_LOST.value,
        error_message=(
            f"The worker was lost {decision.infra_restarts} times without a new checkpoint in between. "
            "Look at the logs of the last attempts and at the host's memory."
        ),
        progress_phase=None,
    )
    return JobStatus.FAILED
