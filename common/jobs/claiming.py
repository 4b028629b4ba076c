"""Claim: a worker takes the best eligible job of its queue, or none.

Highest priority first, then the oldest. The type's advisory lock makes count and claim one step, so a limit is never
passed; SKIP LOCKED keeps claimers from waiting for a row that is being signalled.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from common.config import Settings
from common.db import Job
from common.jobs.changes import move
from common.jobs.clock import now_plus
from common.jobs.limits import open_slots
from common.jobs.locks import lock_types
from common.jobs.status import JobStatus, Writer


def eligible(queue: str) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a row that may be claimed from `queue` now, limits aside."""
    return (
        Job.queue == queue,
        Job.status == JobStatus.PENDING,
        or_(Job.not_before.is_(None), Job.not_before <= func.now()),
    )


def claim(session: Session, queue: str, owner: str, settings: Settings) -> Job | None:
    """Move the best eligible job to provisioning: attempt + 1, lease for `owner`. None when there is none.

    The caller commits at once and starts work only afterwards.
    """
    types = lock_types(session, select(Job.type).where(*eligible(queue)).distinct())
    free = open_slots(session, settings, types) if types else {}
    if not free:
        return None
    best = (
        select(Job)
        .where(*eligible(queue), Job.type.in_(list(free)))
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    job = session.scalars(best).one_or_none()
    if job is None:
        return None
    return move(
        session,
        job,
        JobStatus.PROVISIONING,
        writer=Writer.CLAIMER,
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
