"""The Celery app of a training worker with a bug: one part of the real app is replaced at its start.

SEEDED_BUG selects the bug. `no_fencing`: the owner's writes do not check the number of the attempt. `late_ack`:
messages are acknowledged only after the work, and a claim may return a job that is already running. Only tests use
this app; they start it with `python -m tests.faults.bugs.worker`.
"""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

import common.jobs.lease
import common.jobs.ownership
import common.jobs.queue
import common.jobs.registry
import services.worker.lease_keeper
import services.worker.worker
from common.config import Settings
from common.db import Job
from common.errors import LeaseLostError
from common.jobs.changes import lock
from common.jobs.claiming import claim_job
from common.jobs.lease import Renewal, RequestedState
from common.jobs.sql import now_plus
from services.worker.celery_app import app
from tidal_client.vocabulary import ACTIVE, DesiredState

__all__ = ["app"]


def require_ownership(session: Session, job_id: str, attempt: int, settings: Settings | None = None) -> Job:
    """Lock the job's row and return it, without checking the number of the attempt."""
    job = lock(session, job_id)
    if job.status not in ACTIVE:
        raise LeaseLostError(f"job {job_id} is {job.status}")
    return job


def renew(session: Session, job_id: str, attempt: int, settings: Settings) -> Renewal:
    """Renew the lease without checking the number of the attempt."""
    expires_at = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.status.in_(ACTIVE))
        .values(lease_expires_at=now_plus(settings.lease_seconds))
        .returning(Job.lease_expires_at),
        execution_options={"synchronize_session": False},
    )
    if expires_at is None:
        raise LeaseLostError(f"job {job_id} is not active")
    return Renewal(expires_at, False, read_requested_state(session, job_id, attempt))


def read_requested_state(session: Session, job_id: str, attempt: int) -> RequestedState:
    """Return the desired state without checking the number of the attempt."""
    job = session.get_one(Job, job_id)
    return RequestedState(DesiredState(job.desired_state), job.cancel_requested, job.desired_at, None)


def record_progress(session: Session, job_id: str, attempt: int, *, step: int, **_: Any) -> None:
    """Write the progress without checking the number of the attempt."""
    session.execute(update(Job).where(Job.id == job_id).values(progress_step=step))


def claim_what_runs(session: Session, *arguments: Any) -> Job | None:
    """Claim the next pending job. If there is none, return a running job, as if its message had been sent again."""
    job = claim_job(session, *arguments)
    return job or session.scalars(select(Job).where(Job.status.in_(ACTIVE)).limit(1)).one_or_none()


if os.environ["SEEDED_BUG"] == "no_fencing":
    for module in (common.jobs.lease, common.jobs.ownership, common.jobs.registry):
        vars(module)["require_ownership"] = require_ownership
    vars(common.jobs.queue)["record_progress"] = record_progress
    vars(services.worker.lease_keeper).update(renew=renew, read_requested_state=read_requested_state)
if os.environ["SEEDED_BUG"] == "late_ack":
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
    vars(services.worker.worker)["claim_job"] = claim_what_runs
