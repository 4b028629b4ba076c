"""The reaper: finds attempts whose lease lapsed, and judges them after a quarantine.

    active, lease past                       → stale
    stale, quarantine (from lease end) over  → cancelled (wish stop), pending, or failed `worker_lost` (budget spent)

It only acts after the lease lapsed and compares attempts under row locks. After losing the database, or having stood
still itself, it marks nothing until contact has been unbroken for a while: owners were cut off too and must get their
chance to renew first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from common.child.lifeline import lease_clock
from common.config import Settings
from common.db import Job, database_away
from common.errors import TidalError
from common.jobs.changes import move
from common.jobs.retry import Fault, decide_job_retry
from common.jobs.sql import now_plus, seconds
from common.jobs.status import StatusWriter
from common.logging import get_logger
from tidal_client.vocabulary import ACTIVE, DesiredState, JobStatus

BATCH = 200
SLOW_SWEEP_SECONDS = 15.0
"""What a sweep may take while Redis does not answer."""

log = get_logger(__name__)
T = TypeVar("T")


class DatabaseContact:
    """How long the database has answered without a break, by a clock that counts sleep.

    A new process begins without contact: it cannot know what happened before. One that stood still (a suspended
    machine, a paused container) begins again: those it would judge may have stood still with it.
    """

    def __init__(self, longest_gap_seconds: float, clock: Callable[[], float] = lease_clock) -> None:
        """More than `longest_gap_seconds` between two answers is a break (`max_answer_gap`)."""
        self._longest_gap = longest_gap_seconds
        self._clock = clock
        self._since: float | None = None
        self._last = 0.0

    def record_answer(self) -> None:
        """The database has answered."""
        now = self._clock()
        if self._since is None or now - self._last > self._longest_gap:
            self._since = now
        self._last = now

    def record_outage(self) -> None:
        """The database has not answered."""
        self._since = None

    def settled(self, wanted_seconds: float) -> bool:
        """Whether contact has lasted `wanted_seconds`, and lasts."""
        now = self._clock()
        return self._since is not None and now - self._since >= wanted_seconds and now - self._last <= self._longest_gap


def max_answer_gap(settings: Settings) -> float:
    """Seconds between two answers in ordinary operation at most, Redis being away included.

    So short that an owner which stood still as long has a good part of its lease left (with the lease's default).
    """
    return max(2 * settings.reaper_seconds + SLOW_SWEEP_SECONDS, settings.lease_seconds / 2)


@dataclass(frozen=True)
class Reaped:
    """Rows per outcome of one pass."""

    stale: int = 0
    requeued: int = 0
    cancelled: int = 0
    failed: int = 0


def reap(session: Session, settings: Settings) -> Reaped:
    """One pass: mark, then judge. The caller holds the sweep lock and commits."""
    stale = mark_stale(session)
    outcomes = _each(session, _judgeable(session, settings), lambda job: _judge(session, job, settings))
    return Reaped(
        stale=stale,
        requeued=outcomes.count(JobStatus.PENDING),
        cancelled=outcomes.count(JobStatus.CANCELLED),
        failed=outcomes.count(JobStatus.FAILED),
    )


def mark_stale(session: Session) -> int:
    """Mark every active job whose lease is past; returns how many.

    A row its owner is writing at this moment is left for the next pass.
    """
    lapsed = (
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

    return len(_each(session, session.scalars(lapsed).all(), mark))


def _each(session: Session, jobs: Iterable[Job], act: Callable[[Job], T]) -> list[T]:
    """`act` on each job; one that cannot be moved is logged, left as it is, and keeps no other from its turn."""
    done: list[T] = []
    for job in jobs:
        job_id = job.id
        try:
            with session.begin_nested():
                done.append(act(job))
        except (ValueError, TidalError, DBAPIError) as error:
            if database_away(error):
                raise
            log.exception("the reaper cannot move a job", job_id=job_id)
    return done


def _judgeable(session: Session, settings: Settings) -> list[Job]:
    over = (
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
    return list(session.scalars(over))


def _judge(session: Session, job: Job, settings: Settings) -> JobStatus:
    details = {"reason": Fault.WORKER_LOST.value, "worker": job.lease_owner, "before": job.status_before_stale}
    if job.desired_state == DesiredState.STOP:
        target, event = JobStatus.CANCELLED, "cancelled"
        move(session, job, target, writer=StatusWriter.REAPER, event=event, details=details, progress_phase=None)
        return target
    verdict = decide_job_retry(Fault.WORKER_LOST, job, settings)
    if verdict.retry:
        not_before = now_plus(verdict.delay_seconds) if verdict.delay_seconds else job.not_before
        move(
            session,
            job,
            JobStatus.PENDING,
            writer=StatusWriter.REAPER,
            event="restarted",
            details=details,
            infra_restarts=verdict.infra_restarts,
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
        infra_restarts=verdict.infra_restarts,
        error_code=Fault.WORKER_LOST.value,
        error_message=(
            f"The worker was lost {verdict.infra_restarts} times without a new checkpoint in between. "
            "Look at the logs of the last attempts and at the host's memory."
        ),
        progress_phase=None,
    )
    return JobStatus.FAILED
