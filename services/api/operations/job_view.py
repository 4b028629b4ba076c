"""Converts rows of jobs to replies. A reply has the fields of a `job-update` event, and in addition the signals that
the job accepts and its queue position."""

from __future__ import annotations

from typing import Any

from common.db import Job
from common.jobs.documents import job_document
from common.jobs.signals import offered_signals
from common.jobs.waiting_line import QueuePosition
from services.api.operations.predictions import measurement_of, prediction_of
from tidal_client.vocabulary import Signal
from tidal_client.wire.job import JobDetail, JobError, JobProgress, JobReply


def progress_of(job: Job) -> JobProgress:
    """Return the progress of a job."""
    return JobProgress(
        step=job.progress_step,
        total_steps=job.progress_total_steps,
        eta_seconds=job.progress_eta_seconds,
        phase=job.progress_phase,
    )


def error_of(job: Job) -> JobError | None:
    """Return why a job or its last attempt failed; None if it did not fail."""
    return JobError(code=job.error_code, message=job.error_message) if job.error_code else None


def job_reply(job: Job, place: QueuePosition | None = None) -> JobReply:
    """Return a job without its payload."""
    return JobReply.model_validate(_document(job, place))


def job_detail(job: Job, place: QueuePosition | None = None, what_next: str = "") -> JobDetail:
    """Return a job with its payload and a sentence about what happens next."""
    return JobDetail.model_validate(
        {
            **_document(job, place),
            "payload": job.payload,
            "whatNext": what_next,
            "prediction": prediction_of(job),
            "measurement": measurement_of(job),
        }
    )


def _document(job: Job, place: QueuePosition | None) -> dict[str, Any]:
    offered = offered_signals(job)
    signals = [signal for signal in Signal if signal in offered]
    waits = {"queuePosition": place.position, "predictedStart": place.predicted_start} if place else {}
    return {**job_document(job), **waits, "signals": signals}
