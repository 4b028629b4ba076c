"""What is happening to a job and what Tidal will do next, in a sentence or two for whoever looks at it.

Pure: a row, the database's time and the timers (the situations are listed in its unit test).
The status says where a job is; this says why it is not going on, until when, and what then. Leaves out: its history
(`job_events`), its place in the queue.
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
"""Beyond a deadline of the health process before it is doubted."""

HEALTH_DOUBT = "That is overdue: is the health process running?"

ADVICE = {
    Fault.CUDA_OOM.value: "Lower training.micro_batch_size, model.context_length or the model's size.",
    Fault.OOM_KILLED.value: "The host ran out of memory: lower the batch or the model, or free memory.",
    Fault.WORKER_LOST.value: "Its workers died without a word: look at the host (memory, power, kernel log) first.",
    Fault.DIVERGED.value: "A loss or gradient was not finite: lower the learning rate or warm up for longer.",
    Fault.NO_PROGRESS.value: "The trainer hung: its log says where it was last.",
}
"""By error_code; of other codes the message is the advice."""


def what_next(job: Job, now: datetime, settings: Settings, *, shortage: str = "") -> str:
    """Return what happens next to the job, in sentences; empty when the status alone is enough.

    `now` is the time of the database. `shortage` describes the lack of disk space for a job in the phase
    `waiting_for_disk`, without a full stop.
    """
    status = S(job.status)
    if status in ACTIVE:
        parts = (_disk(job, shortage), _lease(job, now, settings), _wish(job, now, settings))
        return " ".join(part for part in parts if part)
    match status:
        case S.PENDING:
            return _pending(job, now)
        case S.STALE:
            return _stale(job, now, settings)
        case S.PAUSED:
            return f"Its checkpoint is registered, its slot is free; resume goes on {_begin(job)}."
        case S.FAILED:
            advice = ADVICE.get(job.error_code or "", "Its log and the message say why.")
            return f"{advice} {_left(job)}"
        case S.CANCELLED:
            return _left(job)
    return ""


def _pending(job: Job, now: datetime) -> str:
    if job.desired_state == DesiredState.PAUSE:
        return "It is asked to pause and does so at its first safe point; resume withdraws that."
    why = f"After {_times(job.infra_restarts)} without a new checkpoint it is" if job.infra_restarts else "It is"
    again = f", to go on {_begin(job)}" if job.attempt else ""
    if job.not_before is not None and job.not_before > now:
        return f"{why} claimed in {span(job.not_before - now)} at the earliest, as its notBefore asks{again}."
    return f"{why} claimed as soon as a worker and a slot of its type are free{again}."


def _stale(job: Job, now: datetime, settings: Settings) -> str:
    assert job.lease_expires_at is not None
    silent = now - job.lease_expires_at
    judged = job.lease_expires_at + timedelta(seconds=settings.quarantine_seconds)
    parts = [f"Worker {job.lease_owner} stopped renewing its lease, which ended {span(silent)} ago."]
    if judged > now:
        parts.append(f"It may still come back; judged in {span(judged - now)}, then {_verdict(job, settings)}.")
    else:
        parts.append(f"Judged at the next sweep, then {_verdict(job, settings)}.")
        if (now - judged).total_seconds() > OVERDUE_SECONDS + settings.reaper_contact_seconds:
            parts.append(HEALTH_DOUBT)
    return " ".join(parts)


def _verdict(job: Job, settings: Settings) -> str:
    if job.desired_state == DesiredState.STOP:
        return "cancelled, as was asked"
    verdict = decide_job_retry(Fault.WORKER_LOST, job, settings)
    lost = f"{verdict.infra_restarts} of {settings.max_infra_restarts}"
    if not verdict.retry:
        return f"failed, because this is loss {lost} without a new checkpoint"
    return f"back to the queue to go on {_begin(job)} (loss {lost} without a new checkpoint)"


def _disk(job: Job, shortage: str) -> str:
    if job.progress_phase != WAITING_FOR_DISK:
        return ""
    lacks = f": {shortage}" if shortage else ""
    return (
        f"It waits for room on a disk{lacks}. Free some space; the job then goes on by itself within seconds and "
        "repeats no step. Pause and stop work while it waits."
    )


def _lease(job: Job, now: datetime, settings: Settings) -> str:
    """Empty while the lease is renewed as it should be."""
    assert job.lease_expires_at is not None
    left = (job.lease_expires_at - now).total_seconds()
    silent = settings.lease_seconds - left
    if left < 0:
        doubt = f" {HEALTH_DOUBT}" if -left > OVERDUE_SECONDS + settings.reaper_contact_seconds else ""
        return f"Its lease ended {span(-left)} ago; the next sweep marks it stale.{doubt}"
    if silent <= 2.5 * settings.lease_renew_seconds:
        return ""
    pauses = settings.trainer_pause_seconds - silent
    stands = "its trainer stands still" if pauses <= 0 else f"its trainer stands still in {span(pauses)}"
    renewed = f"Worker {job.lease_owner} last renewed its lease {span(silent)} ago"
    return f"{renewed}; {stands}, and it is stale in {span(left)}."


def _wish(job: Job, now: datetime, settings: Settings) -> str:
    wish = DesiredState(job.desired_state)
    if wish is DesiredState.RUN:
        return ""
    since = 0.0 if job.desired_at is None else (now - job.desired_at).total_seconds()
    name = "cancel" if job.cancel_requested else wish.value
    asked = f"Asked to {name} {span(since)} ago" if since >= 1 else f"Asked to {name}"
    if wish is DesiredState.COMPLETE:
        return f"{asked}: training ends, evaluation and the final model follow; that takes as long as it takes."
    does = "frees its slot" if wish is DesiredState.PAUSE else "ends as cancelled, and can be resumed"
    if wish is DesiredState.PAUSE and job.status in (S.PROVISIONING, S.STARTING):
        return f"{asked}: at its first safe point it writes a checkpoint and {does}."
    term = settings.stop_grace_seconds - since
    kill = term + (0.0 if job.cancel_requested else settings.kill_grace_seconds)
    if kill <= 0:
        limit = "its time is over and it is being killed"
    elif job.cancel_requested or term <= 0:
        limit = f"killed in {span(kill)} if it has not ended by itself"
    else:
        limit = f"SIGTERM in {span(term)} and SIGKILL in {span(kill)} if it has not ended by itself"
    return f"{asked}: it writes a checkpoint and {does}; {limit}."


def _left(job: Job) -> str:
    if job.checkpoint_ref is None:
        return "It left no checkpoint."
    return f"A new job with resumeFrom {job.id} goes on {_begin(job)}."


def _begin(job: Job) -> str:
    """Where the next attempt begins, as far as the row knows; one that never ran has its parent's checkpoint."""
    if job.checkpoint_ref is None:
        return "from the beginning"
    if job.checkpoint_step is None:
        return f"at {job.checkpoint_ref.rpartition('/')[2]} of {job.parent_id or 'another job'}"
    return f"after step {job.checkpoint_step}"


def _times(count: int) -> str:
    return "one lost attempt" if count == 1 else plural(count, "lost attempt")
