"""The lease: the right of one attempt to run a job and to write to its row for a limited time.

The supervisor calls `renew` every `lease_renew_seconds`. Every other write of the owner begins with
`require_ownership`, which locks the row and raises LeaseLostError unless this attempt still owns the job. A job whose
lease has expired becomes stale. For some time, which is called the quarantine, the owner can still heal the job: its
next write or renewal restores status and lease.
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
    """The desired state of a job at the time of the read."""

    desired_state: DesiredState
    cancel_requested: bool
    """Whether the stop was requested as cancel: SIGKILL follows at the end of the grace period, without SIGTERM."""
    desired_at: datetime | None
    since_seconds: float | None
    """Seconds since the desired state was set, by the database's clock. The grace period began at that time."""


@dataclass(frozen=True)
class Renewal:
    """A renewed lease, with the desired state that was read in the same transaction."""

    expires_at: datetime
    healed: bool
    """Whether the job was stale and this renewal restored its former status."""
    requested_state: RequestedState

    @property
    def desired_state(self) -> DesiredState:
        """The desired state at the time of the renewal."""
        return self.requested_state.desired_state


def renew(session: Session, job_id: str, attempt: int, settings: Settings | None = None) -> Renewal:
    """Extend the lease to `now()` + lease_seconds. Raises LeaseLostError when the attempt no longer owns the job."""
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
    """Return the current desired state, without a lock. Raises LeaseLostError when another attempt owns the job."""
    age_seconds = func.extract("epoch", func.clock_timestamp() - Job.desired_at)
    row = session.execute(
        select(Job.desired_state, Job.cancel_requested, Job.desired_at, age_seconds).where(
            Job.id == job_id, Job.attempt == attempt, Job.lease_owner.is_not(None)
        )
    ).one_or_none()
    if row is None:
        raise LeaseLostError(f"job {job_id}: attempt {attempt} no longer owns it")
    desired, cancel, desired_at, age = row
    return RequestedState(DesiredState(desired), cancel, desired_at, None if age is None else float(age))


def require_ownership(session: Session, job_id: str, attempt: int, settings: Settings | None = None) -> Job:
    """Lock the job and return it if it is active and owned by `attempt`. Raises LeaseLostError otherwise.

    If the job has become stale in this attempt, it first gets back its former status and a new lease. This is no longer
    possible after the quarantine, because the reaper then decides what happens to the job.
    """
    try:
        job = lock(session, job_id)
    except NotFoundError:
        raise LeaseLostError(f"job {job_id} was deleted") from None
    if job.attempt == attempt and job.status in ACTIVE:
        return job
    if job.attempt == attempt and job.status == JobStatus.STALE and job.status_before_stale is not None:
        settings = settings or get_settings()
        quarantine_over = select(func.now() > Job.lease_expires_at + seconds(settings.quarantine_seconds)).where(
            Job.id == job_id
        )
        if not session.scalar(quarantine_over):
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
