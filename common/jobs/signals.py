"""Records the signals of users for a job: pause, resume, complete, stop, cancel.

If the job has no lease (pending, paused), a signal changes the status at once. Otherwise a signal changes only the
desired state, which the worker that holds the lease carries out and the reaper respects. A signal that is not possible
in the present status raises ConflictError, which names that status.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from common.access import Actor
from common.db import Job
from common.errors import ConflictError
from common.jobs import outbox
from common.jobs.changes import add_event, lock, move
from common.jobs.status import StatusWriter, allowed_signals, desired_state_after, useful_signals
from tidal_client.vocabulary import RESUMABLE, TERMINAL, DesiredState, JobStatus, Signal


def possible_signals(job: Job) -> frozenset[Signal]:
    """Return the signals that `job` accepts in its present status, including those that would change nothing."""
    return allowed_signals(JobStatus(job.status), DesiredState(job.desired_state), resumable=job.type in RESUMABLE)


def offered_signals(job: Job) -> frozenset[Signal]:
    """Return the signals that would change the status or desired state of `job` now; user interfaces offer these."""
    return useful_signals(JobStatus(job.status), DesiredState(job.desired_state), resumable=job.type in RESUMABLE)


def request_signal(session: Session, job_id: str, signal: Signal, actor: Actor | None = None) -> Job:
    """Record `signal`, with `actor` in the event, and return the changed job; the caller commits.

    Repeating a signal has no effect. Raises NotFoundError, ConflictError (`errors[0]` holds the status).
    """
    job = lock(session, job_id)
    status = JobStatus(job.status)
    possible = possible_signals(job)
    if signal not in possible:
        if status in TERMINAL:
            raise _conflict(job, f"job {job_id} is {status} already; it accepts no signals any more")
        kind = "" if job.type in RESUMABLE else f" ({job.type}, which keeps no checkpoint)"
        names = " or ".join(sorted(possible))
        raise _conflict(job, f"job {job_id}{kind} is {status} and accepts {names}, not {signal}")
    if status in (JobStatus.PENDING, JobStatus.PAUSED) and signal is Signal.STOP:
        return _cancel(session, job, actor)
    if status is JobStatus.PAUSED:
        return _resume(session, job, actor)
    present = DesiredState(job.desired_state)
    desired = desired_state_after(present, signal)
    if desired is None:
        raise _conflict(
            job,
            f"job {job_id} ({status}) was already asked to {present}, which the milder signal {signal} cannot withdraw",
        )
    if desired is present:
        return job
    return _record(session, job, signal.value, actor, desired_state=desired)


def request_cancel(session: Session, job_id: str, actor: Actor | None = None) -> Job:
    """Request a stop with SIGKILL at the end of the grace period; cancel a job without a lease at once.

    A stop that is already in progress becomes a stop with SIGKILL. The event names `actor`. Raises NotFoundError, and
    ConflictError for a job that has ended.
    """
    job = lock(session, job_id)
    if job.status in TERMINAL:
        raise _conflict(job, f"job {job_id} is {job.status} already")
    if job.status in (JobStatus.PENDING, JobStatus.PAUSED):
        return _cancel(session, job, actor)
    if job.cancel_requested:
        return job
    return _record(session, job, "cancel", actor, desired_state=DesiredState.STOP, cancel_requested=True)


def _cancel(session: Session, job: Job, actor: Actor | None) -> Job:
    return move(
        session,
        job,
        JobStatus.CANCELLED,
        writer=StatusWriter.API,
        event="cancelled",
        details=_details(actor),
        desired_state=DesiredState.STOP,
        desired_at=func.now(),
    )


def _resume(session: Session, job: Job, actor: Actor | None) -> Job:
    return move(
        session,
        job,
        JobStatus.PENDING,
        writer=StatusWriter.API,
        event="resumed",
        details=_details(actor),
        desired_state=DesiredState.RUN,
        desired_at=func.now(),
        not_before=None,
    )


def _record(session: Session, job: Job, name: str, actor: Actor | None, **fields: Any) -> Job:
    """Write the desired state, an event named `name`, and a notification for the owner.

    The grace period starts with the first stop request; further requests do not extend it.
    """
    if job.desired_state != fields["desired_state"]:
        fields["desired_at"] = func.now()
    before = job.desired_state
    session.execute(update(Job).where(Job.id == job.id).values(updated_at=func.now(), **fields))
    session.refresh(job)
    details = {"signal": name, "from": before, "to": job.desired_state, **_details(actor)}
    add_event(session, job, "signal", actor="api", details=details)
    outbox.add_owner_notification(session, job)
    return job


def _details(actor: Actor | None) -> dict[str, str]:
    return {} if actor is None else actor.event_details()


def _conflict(job: Job, message: str) -> ConflictError:
    return ConflictError(
        message, errors=[{"location": "status", "message": str(job.status)}], code="signal_not_possible"
    )
