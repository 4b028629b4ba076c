"""What the owner of a lease writes.

Every function carries `(job_id, attempt)`, locks the row and refuses with LeaseLostError when another attempt owns
it: stop at once then, and write nothing more.

Each may be repeated when the outcome of a commit is unknown: a status that is already there is left alone.
`complete`, `pause`, `release` and `fail` end the attempt and return the status that was really written, because the
user's wish, read under the lock, has the last word (stop beats everything, a withdrawn pause goes back to the queue).
Call them only when the child is gone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from common.config import Settings, get_settings
from common.db import Job
from common.errors import ConflictError, LeaseLostError, NotFoundError
from common.jobs.changes import add_event, lock, move
from common.jobs.lease import require_ownership
from common.jobs.retry import Fault, decide_job_retry
from common.jobs.sql import now_plus
from common.jobs.status import StatusWriter, forbidden_reason
from tidal_client.vocabulary import ACTIVE, DesiredState, JobStatus

S = JobStatus


def transition(
    session: Session,
    job_id: str,
    attempt: int,
    to: JobStatus,
    *,
    event: str | None = None,
    details: dict[str, Any] | None = None,
    **fields: Any,
) -> JobStatus:
    """Move the job to `to`, along the table and only if the wish allows it; nothing happens when it is there already.

    Raises LeaseLostError, ConflictError (the wish forbids it), ValueError (not in the table).
    """
    if _already(session, job_id, attempt, to):
        return to
    job = require_ownership(session, job_id, attempt)
    if job.status == to:  # healed to it just now
        return to
    reason = forbidden_reason(to, DesiredState(job.desired_state), has_checkpoint=job.checkpoint_ref is not None)
    if reason is not None:
        raise ConflictError(f"job {job_id} cannot become {to}: {reason}")
    move(session, job, to, writer=StatusWriter.OWNER, event=event or to.value, details=details, **fields)
    return to


def complete_job(session: Session, job_id: str, attempt: int, *, details: dict[str, Any] | None = None) -> JobStatus:
    """The child has finished and its artifacts are registered: completed, or cancelled when the wish is stop."""
    if _already(session, job_id, attempt, S.COMPLETED, S.CANCELLED):
        return S(lock(session, job_id).status)
    job = require_ownership(session, job_id, attempt)
    if job.desired_state == DesiredState.STOP:
        return _cancel(session, job, details)
    for step in (S.STARTING, S.RUNNING, S.COMPLETING):
        job = _step(session, job, step)
    move(session, job, S.COMPLETED, writer=StatusWriter.OWNER, event="completed", details=details, progress_phase=None)
    return S.COMPLETED


def pause_job(session: Session, job_id: str, attempt: int, *, details: dict[str, Any] | None = None) -> JobStatus:
    """The child has paused after a checkpoint: paused; or what the wish has become meanwhile."""
    if _already(session, job_id, attempt, S.PAUSED, S.PENDING, S.CANCELLED):
        return S(lock(session, job_id).status)
    return _leave(session, require_ownership(session, job_id, attempt), "paused", details, 0.0)


def release_job(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    reason: str = "drain",
    details: dict[str, Any] | None = None,
    delay_seconds: float = 0.0,
) -> JobStatus:
    """Give the job back without blame (drain, preemption): pending, or paused or cancelled if that is the wish."""
    if _already(session, job_id, attempt, S.PENDING, S.PAUSED, S.CANCELLED):
        return S(lock(session, job_id).status)
    job = require_ownership(session, job_id, attempt)
    return _leave(session, job, "released", {"reason": reason, **(details or {})}, delay_seconds)


def fail_job(
    session: Session,
    job_id: str,
    attempt: int,
    fault: Fault,
    message: str,
    *,
    code: str | None = None,
    details: dict[str, Any] | None = None,
    settings: Settings | None = None,
) -> JobStatus:
    """The attempt ended badly: pending again while the budget of its kind lasts, else failed; cancelled on stop.

    `code` defaults to the fault's own; `message` is what the user reads.
    """
    if _already(session, job_id, attempt, S.FAILED, S.PENDING, S.PAUSED, S.CANCELLED):
        return S(lock(session, job_id).status)
    settings = settings or get_settings()
    job = require_ownership(session, job_id, attempt, settings)
    told = {"code": code or fault.value, "message": message, **(details or {})}
    if job.desired_state == DesiredState.STOP:
        return _cancel(session, job, told)
    verdict = decide_job_retry(fault, job, settings)
    counters = {"infra_restarts": verdict.infra_restarts, "user_failures": verdict.user_failures}
    if verdict.retry:
        return _leave(session, job, "restarted", told, verdict.delay_seconds, **counters)
    errors = {"error_code": code or fault.value, "error_message": message, "progress_phase": None}
    move(session, job, S.FAILED, writer=StatusWriter.OWNER, event="failed", details=told, **counters, **errors)
    return S.FAILED


def record_event(
    session: Session, job_id: str, attempt: int, event: str, details: dict[str, Any] | None = None
) -> None:
    """Something worth knowing that changes no status: resume_inexact, checkpoint_skipped, sigterm_sent, …"""
    add_event(session, require_ownership(session, job_id, attempt), event, actor="worker", details=details)


def record_progress(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    step: int,
    total_steps: int | None = None,
    eta_seconds: float | None = None,
    phase: str | None = None,
) -> None:
    """Step, total, eta and phase for display; no event, no job-update (live feeds come through Redis)."""
    written = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.status.in_([*ACTIVE, S.STALE]))
        .values(
            progress_step=step,
            progress_total_steps=total_steps,
            progress_eta_seconds=eta_seconds,
            progress_phase=phase,
            progress_at=func.now(),
            updated_at=func.now(),
        )
        .returning(Job.id),
        execution_options={"synchronize_session": False},
    )
    if written is None:
        raise LeaseLostError(f"job {job_id}: attempt {attempt} no longer owns it")


def _already(session: Session, job_id: str, attempt: int, *targets: JobStatus) -> bool:
    """Whether this attempt has written one of `targets` before (the answer to a commit got lost)."""
    try:
        job = lock(session, job_id)
    except NotFoundError:
        raise LeaseLostError(f"job {job_id} was deleted") from None
    return job.attempt == attempt and job.status in targets


def _step(session: Session, job: Job, to: JobStatus) -> Job:
    """Take one step of the straight way to completing, unless the job is past it."""
    way = [S.PROVISIONING, S.STARTING, S.RUNNING, S.COMPLETING]
    if job.status not in way or way.index(S(job.status)) >= way.index(to):
        return job
    return move(session, job, to, writer=StatusWriter.OWNER, event=to.value)


def _cancel(session: Session, job: Job, details: dict[str, Any] | None) -> JobStatus:
    if job.status != S.STOPPING:
        job = move(session, job, S.STOPPING, writer=StatusWriter.OWNER, event="stopping")
    move(session, job, S.CANCELLED, writer=StatusWriter.OWNER, event="cancelled", details=details, progress_phase=None)
    return S.CANCELLED


def _leave(
    session: Session, job: Job, event: str, details: dict[str, Any] | None, delay_seconds: float, **fields: Any
) -> JobStatus:
    """Free the slot: cancelled if the wish is stop, paused if it is pause and a checkpoint is there, else pending."""
    if job.desired_state == DesiredState.STOP:
        return _cancel(session, job, details)
    if job.desired_state == DesiredState.PAUSE and job.checkpoint_ref is not None and job.status in _BEFORE_COMPLETING:
        for step in (S.STARTING, S.RUNNING):
            job = _step(session, job, step)
        move(
            session,
            job,
            S.PAUSED,
            writer=StatusWriter.OWNER,
            event="paused",
            details=details,
            progress_phase=None,
            **fields,
        )
        return S.PAUSED
    if delay_seconds > 0:
        fields["not_before"] = now_plus(delay_seconds)
    event = "released" if event == "paused" else event
    move(
        session, job, S.PENDING, writer=StatusWriter.OWNER, event=event, details=details, progress_phase=None, **fields
    )
    return S.PENDING


_BEFORE_COMPLETING = frozenset({S.PROVISIONING, S.STARTING, S.RUNNING})
