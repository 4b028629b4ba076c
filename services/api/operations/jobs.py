"""Jobs: lists, details, events, signals, and predictions of start times. `submission` submits jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, defer

from common.access import Actor
from common.audit import record_change
from common.config import Settings
from common.db import Job, JobEvent
from common.disk import free_bytes, shortage_text
from common.errors import NotFoundError
from common.jobs.changes import lock
from common.jobs.limits import leased_counts, require_queue_capacity, type_limit
from common.jobs.queue import NewJob
from common.jobs.signals import request_cancel, request_signal
from common.jobs.waiting_line import QueuePosition
from common.jobs.what_next import what_next
from services.api.operations.job_view import job_detail, job_reply
from services.api.paging import newest_page
from services.api.workers import Outlook
from tidal_client.vocabulary import LEASED, LIVE, WAITING_FOR_DISK, JobStatus, JobType, Signal
from tidal_client.wire.job import JobDetail, JobEventList, JobEventReply, JobList, JobPrediction

MAX_LIVE = 1000
"""Maximum number of jobs in replies without pages: the list of active jobs, and the snapshot of the jobs stream."""


def jobs_page(
    session: Session,
    outlook: Outlook,
    *,
    limit: int,
    cursor: str | None,
    statuses: list[JobStatus] | None = None,
    kind: JobType | None = None,
    tag: str | None = None,
    experiment_id: str | None = None,
) -> JobList:
    """Return a page of jobs, newest first."""
    query = _rows()
    if statuses:
        query = query.where(Job.status.in_(statuses))
    if kind is not None:
        query = query.where(Job.type == kind)
    if tag is not None:
        query = query.where(Job.tags.bool_op("@>")([tag]))
    if experiment_id is not None:
        query = query.where(Job.experiment_id == experiment_id)
    page, following = newest_page(session, query, Job.created_at, Job.id, limit=limit, cursor=cursor)
    return _list(session, outlook, [job for (job,) in page], following)


def active_jobs(session: Session, outlook: Outlook) -> JobList:
    """Return the jobs that hold a slot of a worker, including stale ones, newest first."""
    query = _rows().where(Job.status.in_(LEASED)).order_by(Job.created_at.desc(), Job.id.desc()).limit(MAX_LIVE)
    return _list(session, outlook, session.scalars(query).all())


def live_jobs(session: Session, outlook: Outlook) -> JobList:
    """Return all jobs that have not ended, newest first."""
    query = _rows().where(Job.status.in_(LIVE)).order_by(Job.created_at.desc(), Job.id.desc()).limit(MAX_LIVE)
    return _list(session, outlook, session.scalars(query).all())


def find_job(session: Session, job_id: str) -> Job:
    """Return the row of a job. Raises NotFoundError."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"there is no job {job_id!r}")
    return job


def get_job(session: Session, outlook: Outlook, job_id: str) -> JobDetail:
    """Return a job with its payload. Raises NotFoundError."""
    return detail(session, outlook, find_job(session, job_id))


def detail(session: Session, outlook: Outlook, job: Job) -> JobDetail:
    """Return the job with its payload, its position in the queue and a sentence about what happens next."""
    now = session.scalars(select(func.now())).one()
    coming = what_next(job, now, outlook.settings, shortage=_shortage(session, outlook, job))
    return job_detail(job, _places(session, outlook, [job]).get(job.id), coming)


def signal_job(session: Session, outlook: Outlook, job_id: str, signal: Signal, actor: Actor) -> JobDetail:
    """Record a signal; the caller commits. Raises the errors of `common.jobs.signals.request_signal`."""
    before = _audited(lock(session, job_id))
    job = request_signal(session, job_id, signal, actor)
    if _audited(job) != before:
        record_change(session, actor, "job.signal", job_id, before=before, after=_audited(job))
    return detail(session, outlook, job)


def cancel_job(session: Session, outlook: Outlook, job_id: str, actor: Actor) -> JobDetail:
    """Record a cancellation; the caller commits. Raises the errors of `common.jobs.signals.request_cancel`."""
    before = _audited(lock(session, job_id))
    job = request_cancel(session, job_id, actor)
    if _audited(job) != before:
        record_change(session, actor, "job.cancel", job_id, before=before, after=_audited(job))
    return detail(session, outlook, job)


def _audited(job: Job) -> dict[str, Any]:
    """Return what the audit log shows of a job before and after a signal."""
    return {"status": job.status, "desiredState": job.desired_state, "cancelRequested": job.cancel_requested}


def _shortage(session: Session, outlook: Outlook, job: Job) -> str:
    """Describe the disk space for which `job` waits: how much its trainer needs, and how much is free now.

    Returns an empty string for a job that does not wait for disk space.
    """
    if job.progress_phase != WAITING_FOR_DISK:
        return ""
    query = select(JobEvent.details).where(JobEvent.job_id == job.id, JobEvent.event == WAITING_FOR_DISK)
    reported = session.scalar(query.order_by(JobEvent.id.desc()).limit(1))
    if reported is None:
        return ""
    settings = outlook.settings
    folder = settings.data_dir if reported["disk"] == "data" else settings.experiments_dir
    return shortage_text(reported["disk"], free_bytes(folder), reported["needed_bytes"], reported.get("reason"))


def job_events(session: Session, job_id: str, *, limit: int, after: int) -> JobEventList:
    """Return those events of a job that have ids greater than `after`, oldest first. Raises NotFoundError."""
    find_job(session, job_id)
    query = (
        select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id).limit(limit + 1)
    )
    rows = session.scalars(query).all()
    page = rows[:limit]
    return JobEventList(
        events=[JobEventReply.model_validate(row) for row in page],
        next_cursor=str(page[-1].id) if len(rows) > limit else None,
    )


def predict_submission(session: Session, settings: Settings, new: NewJob) -> JobPrediction:
    """Predict what submitting `new` would do now, without writing anything.

    Raises RateLimitedError when too many jobs are waiting.
    """
    payload = new.checked_payload
    require_queue_capacity(session, settings)
    busy = leased_counts(session, [new.type]).get(new.type, 0)
    before = session.scalar(
        select(func.count()).where(Job.type == new.type, Job.status == JobStatus.PENDING, Job.priority >= new.priority)
    )
    waiting = before or 0
    limit = type_limit(settings, new.type)
    return JobPrediction(
        type=new.type,
        experiment_type=payload.experiment_type,
        payload=payload.model_dump(mode="json"),
        would_wait=limit is not None and busy + waiting >= limit,
        queue_position=waiting + 1,
    )


def _rows() -> Select[Job]:
    """Return a query for jobs without the columns that are large and not part of lists."""
    large = (Job.payload, Job.prediction, Job.measurement)
    return select(Job).options(*(defer(column, raiseload=True) for column in large))


def _list(session: Session, outlook: Outlook, jobs: Sequence[Job], following: str | None = None) -> JobList:
    places = _places(session, outlook, jobs)
    return JobList(jobs=[job_reply(job, places.get(job.id)) for job in jobs], next_cursor=following)


def _places(session: Session, outlook: Outlook, jobs: Sequence[Job]) -> dict[str, QueuePosition]:
    return outlook.places(session, [job.id for job in jobs if job.status == JobStatus.PENDING])
