"""The lease: the right of one attempt to run for a while, and to write.

`renew` every 10 s from the supervisor. `own` opens every other write of the owner: it locks the row and refuses
unless this very attempt still holds it. A job that went stale is healed by its owner within the quarantine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from common.config import Settings, get_settings
from common.db import Job
from common.errors import LeaseLostError, NotFoundError
from common.jobs.changes import lock, move
from common.jobs.sql import now_plus, seconds
from common.jobs.status import StatusWriter
from tidal_client.vocabulary import ACTIVE, DesiredState, JobStatus


@dataclass(frozen=True)
class RequestedState:
    """What the user wants at this moment."""

    desired_state: DesiredState
    cancel_requested: bool
    """The stop came as cancel: SIGKILL when its grace is over."""
    desired_at: datetime | None
    since_seconds: float | None
    """Seconds since the wish was made, by the database's clock; the stop grace counts from there."""


@dataclass(frozen=True)
class Renewal:
    """A lease that was renewed, with the wish of the same moment."""

    expires_at: datetime
    healed: bool
    """The job was stale and is back in its former status."""
    wish: RequestedState

    @property
    def desired_state(self) -> DesiredState:
        """The present wish."""
        return self.requested.desired_state


def renew(session: Session, job_id: str, attempt: int, settings: Settings | None = None) -> Renewal:
    """Extend the lease to `now()` + lease_seconds; raises LeaseLostError when the attempt no longer owns the job."""
    settings = settings or get_settings()
    expires_at = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.status.in_(ACTIVE))
        .values(lease_expires_at=now_plus(settings.lease_seconds))
        .returning(Job.lease_expires_at),
        execution_options={"synchronize_session": False},
    )
    healed = expires_at is None
    if healed:
        expires_at = require_ownership(session, job_id, attempt, settings).lease_expires_at
    assert expires_at is not None
    return Renewal(expires_at, healed, read_requested_state(session, job_id, attempt))


def read_requested_state(session: Session, job_id: str, attempt: int) -> RequestedState:
    """The present wish, without touching the row; raises LeaseLostError when another attempt owns the job."""
    since = func.extract("epoch", func.clock_timestamp() - Job.desired_at)
    row = session.execute(
        select(Job.desired_state, Job.cancel_requested, Job.desired_at, since).where(
            Job.id == job_id, Job.attempt == attempt, Job.lease_owner.is_not(None)
        )
    ).one_or_none()
    if row is None:
        raise LeaseLostError(f"job {job_id}: attempt {attempt} no longer owns it")
    desired, cancel, at, age = row
    return RequestedState(DesiredState(desired), cancel, at, None if age is None else float(age))


def require_ownership(session: Session, job_id: str, attempt: int, settings: Settings | None = None) -> Job:
    """The locked row, active, owned by `attempt`; LeaseLostError otherwise.

    A stale row of this attempt is healed first (former status, fresh lease) while its quarantine lasts; afterwards
    the reaper has the say.
    """
    try:
        job = lock(session, job_id)
    except NotFoundError:
        raise LeaseLostError(f"job {job_id} was deleted") from None
    if job.attempt == attempt and job.status in ACTIVE:
        return job
    if job.attempt == attempt and job.status == JobStatus.STALE and job.status_before_stale is not None:
        settings = settings or get_settings()
        over = select(func.now() > Job.lease_expires_at + seconds(settings.quarantine_seconds)).where(Job.id == job_id)
        if not session.scalar(over):
            return move(
                session,
                job,
                JobStatus(job.status_before_stale),
                writer=StatusWriter.OWNER,
                event="healed",
                lease_expires_at=now_plus(settings.lease_seconds),
            )
    raise LeaseLostError(
        f"job {job_id}: attempt {attempt} no longer owns it; it is {job.status} at attempt {job.attempt}"
    )
