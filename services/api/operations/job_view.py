"""A job row as the api shows it: the document of the `job-update` events, with what only a request can know."""

from __future__ import annotations

from typing import Any

from common.db import Job
from common.jobs.documents import job_document
from common.jobs.signals import offered_signals
from common.jobs.waiting_line import Place
from tidal_client.vocabulary import Signal
from tidal_client.wire.job import JobDetail, JobError, JobProgress, JobReply


def progress_of(job: Job) -> JobProgress:
    """How far it is."""
    return JobProgress(
        step=job.progress_step,
        total_steps=job.progress_total_steps,
        eta_seconds=job.progress_eta_seconds,
        phase=job.progress_phase,
    )


def error_of(job: Job) -> JobError | None:
    """Why it or its last attempt failed."""
    return JobError(code=job.error_code, message=job.error_message) if job.error_code else None


def job_reply(job: Job, place: Place | None = None) -> JobReply:
    """Everything but the payload."""
    return JobReply.model_validate(_document(job, place))


def job_detail(job: Job, place: Place | None = None, what_next: str = "") -> JobDetail:
    """With the payload and what happens next."""
    return JobDetail.model_validate({**_document(job, place), "payload": job.payload, "whatNext": what_next})


def _document(job: Job, place: Place | None) -> dict[str, Any]:
    offered = offered_signals(job)
    signals = [signal for signal in Signal if signal in offered]
    waits = {"queuePosition": place.position, "predictedStart": place.predicted_start} if place else {}
    return {**job_document(job), **waits, "signals": signals}
