"""Describes in one or two sentences what happens to a job now, and what Tidal does with it next.

The status alone explains neither why a job makes no progress, nor how long that lasts and what follows. The text
depends only on the row of the job, the time of the database and the settings (the unit test lists the situations). It
mentions neither earlier events of the job (`job_events`) nor its position in the queue.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from common.config import Settings
from common.db import Job
from common.jobs.retry import Fault, decide_job_retry
from common.words import plural, span
from tidal_client.vocabulary import ACTIVE, WAITING_FOR_DISK, DesiredState, JobStatus

S = JobStatus

OVERDUE_SECONDS = 30.0
"""Number of seconds by which an action of the health process must be late before the text suggests to check that
process."""

HEALTH_OVERDUE = "That is overdue; check that the health process is running."

ADVICE = {
    Fault.CUDA_OOM.value: "Lower training.micro_batch_size, model.context_length or the model's size.",
    Fault.OOM_KILLED.value: "The host ran out of memory: lower the batch or model size, or free memory.",
    Fault.WORKER_LOST.value: "Its workers ended without an error: check the host first (memory, power, kernel log).",
    Fault.DIVERGED.value: "A loss or gradient was not finite: lower the learning rate or warm up for longer.",
    Fault.NO_PROGRESS.value: "The trainer made no progress: its log shows what it did last.",
}
"""{error code of a job: what the user can do}; for other codes the error message is enough."""


def what_next(job: Job, now: datetime, settings: Settings, *, shortage: str = "") -> str:
    """Return sentences about what happens next to the job; empty when the status alone is enough.

    `now` is the time of the database. `shortage` describes the lack of disk space for a job in the phase
    `waiting_for_disk`, without a full stop.
    """
    status = S(job.status)
    if status in ACTIVE:
        parts = (_disk(job, shortage), _lease(job, now, settings), _request(job, now, settings))
        return " ".join(part for part in parts if part)
    match status:
        case S.PENDING:
            return _pending(job, now)
        case S.STALE:
            return _stale(job, now, settings)
        case S.PAUSED:
            return f"Its checkpoint is registered and its slot is free; resume continues it {_start(job)}."
        case S.FAILED:
            advice = ADVICE.get(job.error_code or "", "See the log and the error message for the reason.")
            return f"{advice} {_continuation(job)}"
        case S.CANCELLED:
            return _continuation(job)
    return ""


def _pending(job: Job, now: datetime) -> str:
    if job.desired_state == DesiredState.PAUSE:
        return "A pause was requested: the next attempt pauses once it has a checkpoint. Resume withdraws the request."
    job_is = "The job is"
    if job.infra_restarts:
        job_is = f"After {_lost_attempts(job.infra_restarts)} without a new checkpoint, the job is"
    then = f", and then continues {_start(job)}" if job.attempt else ""
    if job.not_before is not None and job.not_before > now:
        return f"{job_is} claimed in {span(job.not_before - now)} at the earliest (notBefore){then}."
    return f"{job_is} claimed as soon as a worker and a slot of its type are free{then}."


def _stale(job: Job, now: datetime, settings: Settings) -> str:
    assert job.lease_expires_at is not None
    expired_for = now - job.lease_expires_at
    quarantine_end = job.lease_expires_at + timedelta(seconds=settings.quarantine_seconds)
    parts = [f"Worker {job.lease_owner} stopped renewing its lease, which expired {span(expired_for)} ago."]
    if quarantine_end > now:
        remaining = span(quarantine_end - now)
        parts.append(f"The worker may still recover; otherwise, in {remaining}, the job {_outcome(job, settings)}.")
    else:
        parts.append(f"At the reaper's next pass, the job {_outcome(job, settings)}.")
        if (now - quarantine_end).total_seconds() > OVERDUE_SECONDS + settings.reaper_contact_seconds:
            parts.append(HEALTH_OVERDUE)
    return " ".join(parts)


def _outcome(job: Job, settings: Settings) -> str:
    """Return what the reaper will do with a stale job, as the predicate of a sentence about the job."""
    if job.desired_state == DesiredState.STOP:
        return "is cancelled, as requested"
    decision = decide_job_retry(Fault.WORKER_LOST, job, settings)
    lost = f"{decision.infra_restarts} of {settings.max_infra_restarts}"
    if not decision.retry:
        return f"fails, because this is lost attempt {lost} without a new checkpoint"
    return f"returns to the queue and continues {_start(job)} (lost attempt {lost} without a new checkpoint)"


def _disk(job: Job, shortage: str) -> str:
    if job.progress_phase != WAITING_FOR_DISK:
        return ""
    details = f": {shortage}" if shortage else ""
    return (
        f"The job waits for free space on a disk{details}. Free some space; the job then continues by itself within "
        "seconds and repeats no step. The job can be paused or stopped while it waits."
    )


def _lease(job: Job, now: datetime, settings: Settings) -> str:
    """Return a warning if the lease is not renewed on time, else ""."""
    assert job.lease_expires_at is not None
    remaining = (job.lease_expires_at - now).total_seconds()
    since_renewal = settings.lease_seconds - remaining
    if remaining < 0:
        late = f" {HEALTH_OVERDUE}" if -remaining > OVERDUE_SECONDS + settings.reaper_contact_seconds else ""
        return f"Its lease expired {span(-remaining)} ago; the reaper soon marks the job as stale.{late}"
    if since_renewal <= 2.5 * settings.lease_renew_seconds:
        return ""
    until_pause = settings.trainer_pause_seconds - since_renewal
    trainer = "its trainer is suspended"
    if until_pause > 0:
        trainer = f"its trainer is suspended in {span(until_pause)}"
    renewed = f"Worker {job.lease_owner} last renewed its lease {span(since_renewal)} ago"
    return f"{renewed}; {trainer}, and the job becomes stale in {span(remaining)}."


def _request(job: Job, now: datetime, settings: Settings) -> str:
    """Return how a requested pause, complete, stop or cancel proceeds, or "" if nothing was requested."""
    desired = DesiredState(job.desired_state)
    if desired is DesiredState.RUN:
        return ""
    since = 0.0 if job.desired_at is None else (now - job.desired_at).total_seconds()
    name = "cancel" if job.cancel_requested else desired.value
    asked = f"Asked to {name} {span(since)} ago" if since >= 1 else f"Asked to {name}"
    if desired is DesiredState.COMPLETE:
        return f"{asked}: training ends, then evaluation and the final model follow, without a time limit."
    result = "frees its slot" if desired is DesiredState.PAUSE else "ends as cancelled, and can be resumed"
    if desired is DesiredState.PAUSE and job.status in (S.PROVISIONING, S.STARTING):
        return f"{asked}: after its start the job writes a checkpoint and {result}."
    until_term = settings.stop_grace_seconds - since
    until_kill = until_term + (0.0 if job.cancel_requested else settings.kill_grace_seconds)
    if until_kill <= 0:
        limit = "its grace period is over and it is being killed"
    elif job.cancel_requested or until_term <= 0:
        limit = f"it is killed in {span(until_kill)} if it has not ended by then"
    else:
        limit = f"SIGTERM follows in {span(until_term)} and SIGKILL in {span(until_kill)} if it has not ended by then"
    return f"{asked}: the job writes a checkpoint and {result}; {limit}."


def _continuation(job: Job) -> str:
    """Return how a job that has ended can be continued."""
    if job.checkpoint_ref is None:
        return "The job has no checkpoint."
    return f"A new job with resumeFrom {job.id} continues {_start(job)}."


def _start(job: Job) -> str:
    """Return where the next attempt begins, according to the job's row.

    Before a job registers its first checkpoint, `checkpoint_ref` may name a checkpoint of the job's parent.
    """
    if job.checkpoint_ref is None:
        return "from the beginning"
    if job.checkpoint_step is None:
        return f"from {job.checkpoint_ref.rpartition('/')[2]} of {job.parent_id or 'another job'}"
    return f"after step {job.checkpoint_step}"


def _lost_attempts(count: int) -> str:
    return "one lost attempt" if count == 1 else plural(count, "lost attempt")
