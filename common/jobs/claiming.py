"""Claims jobs for workers.

A worker takes the claimable job of its queue with the highest priority, and of several such jobs the oldest.

SKIP LOCKED lets a claimer pass over rows that other transactions hold, instead of waiting for them. If the type of the
job has a concurrency limit, an advisory lock per type makes counting and claiming one step, so that the limit is never
exceeded; a type without a limit is claimed without that lock (docs/decisions/0035).
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
    """Return the conditions under which a row of `queue` may be claimed now, except for the concurrency limits."""
    return (
        Job.queue == queue,
        Job.status == JobStatus.PENDING,
        or_(Job.not_before.is_(None), Job.not_before <= func.now()),
    )


def claim_job(session: Session, queue: str, owner: str, settings: Settings) -> Job | None:
    """Move the next claimable job to provisioning, with attempt + 1 and a lease for `owner`. Return it, or None.

    The caller must commit at once, and may start to work only after the commit.
    """
    # This count takes no lock, so it may be outdated. A slot that was taken meanwhile is noticed under the lock below;
    # a job that frees a slot sends a notification, so that another claim follows.
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
        # Another claimer took the last slot. Release this type's lock before the lock of another type is taken: two
        # claimers that each hold one lock and wait for the other would deadlock.
        place.rollback()
        open_types.discard(job.type)
    return None


def _best(session: Session, queue: str, types: set[str]) -> Job | None:
    """Lock and return the next claimable row with one of the `types`, or None."""
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
