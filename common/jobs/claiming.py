"""Claim: a worker takes the best eligible job of its queue, or none.

Highest priority first, then the oldest. SKIP LOCKED keeps claimers from waiting for each other's rows, or for one that
is being signalled. Where the best job's type has a limit, the type's advisory lock makes count and claim one step, so
the limit is never passed; a type without one is claimed without that lock (docs/decisions/0035).
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from common.config import Settings
from common.db import Job
from common.jobs.changes import move
from common.jobs.limits import free_slots, type_limit
from common.jobs.sql import lock_type, now_plus
from common.jobs.status import StatusWriter
from tidal_client.vocabulary import JobStatus, JobType


def eligible(queue: str) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a row that may be claimed from `queue` now, limits aside."""
    return (
        Job.queue == queue,
        Job.status == JobStatus.PENDING,
        or_(Job.not_before.is_(None), Job.not_before <= func.now()),
    )


def claim_job(session: Session, queue: str, owner: str, settings: Settings) -> Job | None:
    """Move the best eligible job to provisioning: attempt + 1, lease for `owner`. None when there is none.

    The caller commits at once and starts work only afterwards.
    """
    # Counted without a lock: whoever frees a place after this rings for it.
    open_types = set(free_slots(session, settings, JobType))
    while open_types:
        job = _best(session, queue, open_types)
        if job is None:
            return None
        if type_limit(settings, job.type) is None:
            return _take(session, job, owner, settings)
        place = session.begin_nested()
        lock_type(session, job.type)
        if free_slots(session, settings, [job.type]):
            place.commit()
            return _take(session, job, owner, settings)
        # Lost the race for the last place. The type's lock goes before another type's is taken: two claimers that
        # each hold one and want the other's would wait forever.
        place.rollback()
        open_types.discard(job.type)
    return None


def _best(session: Session, queue: str, types: set[str]) -> Job | None:
    """The first claimable row of `types`, locked; None without one."""
    best = (
        select(Job)
        .where(*eligible(queue), *([Job.type.in_(types)] if len(types) < len(JobType) else []))
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return session.scalars(best).one_or_none()


def _take(session: Session, job: Job, owner: str, settings: Settings) -> Job:
    return move(
        session,
        job,
        JobStatus.PROVISIONING,
        writer=StatusWriter.CLAIMER,
        event="claimed",
        details={"worker": owner},
        attempt=Job.attempt + 1,
        lease_owner=owner,
        lease_expires_at=now_plus(settings.lease_seconds),
        started_at=func.coalesce(Job.started_at, func.now()),
        not_before=None,
        progress_phase=None,
        progress_eta_seconds=None,
    )
