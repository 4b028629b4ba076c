"""The writes of a lease's owner: transitions, the end of the attempt, events and progress.

Every function takes `(job_id, attempt)`, locks the row, and raises LeaseLostError when another attempt owns the job;
the caller must then stop at once and write nothing more. A caller that does not know whether its commit succeeded may
repeat the call: if the status was already written, nothing happens.

`complete_job`, `pause_job`, `release_job` and `fail_job` end the attempt and return the status that was written. The
status depends on the desired state, which is read under the lock: on a stop request each of these functions cancels the
job, and if a pause request has been withdrawn, `pause_job` returns the job to the queue. These functions must be called
only after the child process has ended.
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
    """Move the job to `to`, unless this attempt has already done so.

    Raises LeaseLostError, ConflictError (the desired state forbids it), ValueError (no such transition).
    """
    if _already_written(session, job_id, attempt, to):
        return to
    job = require_ownership(session, job_id, attempt)
    if job.status == to:  # true if `require_ownership` has just restored this status
        return to
    reason = forbidden_reason(to, DesiredState(job.desired_state), has_checkpoint=job.checkpoint_ref is not None)
    if reason is not None:
        raise ConflictError(f"job {job_id} cannot become {to}: {reason}")
    move(session, job, to, writer=StatusWriter.OWNER, event=event or to.value, details=details, **fields)
    return to


def complete_job(session: Session, job_id: str, attempt: int, *, details: dict[str, Any] | None = None) -> JobStatus:
    """Complete a job whose child process finished and whose artifacts are registered; cancel it on a stop request."""
    if _already_written(session, job_id, attempt, S.COMPLETED, S.CANCELLED):
        return S(lock(session, job_id).status)
    job = require_ownership(session, job_id, attempt)
    if job.desired_state == DesiredState.STOP:
        return _cancel(session, job, details)
    for step in (S.STARTING, S.RUNNING, S.COMPLETING):
        job = _advance(session, job, step)
    move(session, job, S.COMPLETED, writer=StatusWriter.OWNER, event="completed", details=details, progress_phase=None)
    return S.COMPLETED


def pause_job(session: Session, job_id: str, attempt: int, *, details: dict[str, Any] | None = None) -> JobStatus:
    """Pause a job whose child process has saved a checkpoint; cancel or requeue it if the desired state has changed."""
    if _already_written(session, job_id, attempt, S.PAUSED, S.PENDING, S.CANCELLED):
        return S(lock(session, job_id).status)
    return _free_slot(session, require_ownership(session, job_id, attempt), "paused", details, 0.0)


def release_job(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    reason: str = "drain",
    details: dict[str, Any] | None = None,
    delay_seconds: float = 0.0,
) -> JobStatus:
    """Requeue the job without using its retry budget, or pause or cancel it if that is the desired state.

    `reason` is recorded in the event, for example `drain`.
    """
    if _already_written(session, job_id, attempt, S.PENDING, S.PAUSED, S.CANCELLED):
        return S(lock(session, job_id).status)
    job = require_ownership(session, job_id, attempt)
    return _free_slot(session, job, "released", {"reason": reason, **(details or {})}, delay_seconds)


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
    """End an attempt that failed: requeue the job while its retry budget lasts, otherwise mark it as failed.

    On a stop request the job is cancelled instead. `code` defaults to the value of `fault`; users see `message`.
    """
    if _already_written(session, job_id, attempt, S.FAILED, S.PENDING, S.PAUSED, S.CANCELLED):
        return S(lock(session, job_id).status)
    settings = settings or get_settings()
    job = require_ownership(session, job_id, attempt, settings)
    error = {"code": code or fault.value, "message": message, **(details or {})}
    if job.desired_state == DesiredState.STOP:
        return _cancel(session, job, error)
    decision = decide_job_retry(fault, job, settings)
    counters = {"infra_restarts": decision.infra_restarts, "user_failures": decision.user_failures}
    if decision.retry:
        return _free_slot(session, job, "restarted", error, decision.delay_seconds, **counters)
    fields = {"error_code": code or fault.value, "error_message": message, "progress_phase": None}
    move(session, job, S.FAILED, writer=StatusWriter.OWNER, event="failed", details=error, **counters, **fields)
    return S.FAILED


def record_event(
    session: Session, job_id: str, attempt: int, event: str, details: dict[str, Any] | None = None
) -> None:
    """Record an event that does not change the status: resume_inexact, checkpoint_skipped, sigterm_sent, …"""
    add_event(session, require_ownership(session, job_id, attempt), event, actor="worker", details=details)


def record_measurement(session: Session, job_id: str, attempt: int, measurement: dict[str, Any]) -> None:
    """Store the measured duration and memory of the attempt. Raises LeaseLostError."""
    require_ownership(session, job_id, attempt)
    session.execute(
        update(Job).where(Job.id == job_id).values(measurement=measurement),
        execution_options={"synchronize_session": False},
    )


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
    """Write step, total, remaining time and phase for display, without an event or a job-update.

    Live displays receive the progress through Redis. Raises LeaseLostError.
    """
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


def _already_written(session: Session, job_id: str, attempt: int, *targets: JobStatus) -> bool:
    """Return whether this attempt has already written one of `targets`; the call then repeats an earlier one."""
    try:
        job = lock(session, job_id)
    except NotFoundError:
        raise LeaseLostError(f"job {job_id} was deleted") from None
    return job.attempt == attempt and job.status in targets


def _advance(session: Session, job: Job, to: JobStatus) -> Job:
    """Move the job to `to`, one of the statuses on the way to completion, unless it has already reached that status."""
    order = [S.PROVISIONING, S.STARTING, S.RUNNING, S.COMPLETING]
    if job.status not in order or order.index(S(job.status)) >= order.index(to):
        return job
    return move(session, job, to, writer=StatusWriter.OWNER, event=to.value)


def _cancel(session: Session, job: Job, details: dict[str, Any] | None) -> JobStatus:
    if job.status != S.STOPPING:
        job = move(session, job, S.STOPPING, writer=StatusWriter.OWNER, event="stopping")
    move(session, job, S.CANCELLED, writer=StatusWriter.OWNER, event="cancelled", details=details, progress_phase=None)
    return S.CANCELLED


def _free_slot(
    session: Session, job: Job, event: str, details: dict[str, Any] | None, delay_seconds: float, **fields: Any
) -> JobStatus:
    """End the attempt according to the desired state and return the new status.

    The job is cancelled on a stop request, paused on a pause request if it has a checkpoint, and requeued otherwise.
    """
    if job.desired_state == DesiredState.STOP:
        return _cancel(session, job, details)
    if job.desired_state == DesiredState.PAUSE and job.checkpoint_ref is not None and job.status in _BEFORE_COMPLETING:
        for step in (S.STARTING, S.RUNNING):
            job = _advance(session, job, step)
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
