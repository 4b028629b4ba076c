"""The queues: waiting jobs by type, concurrency limits, and workers."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from common.db import Job
from common.jobs.limits import type_limit
from common.jobs.payloads import QUEUES
from common.jobs.waiting_line import list_waiting_jobs, usual_seconds
from services.api.workers import Outlook
from tidal_client.vocabulary import ACTIVE, LEASED, JobStatus
from tidal_client.wire.queue import QueuedJob, QueueList, QueueReply, QueueType, QueueWorker


def queue_overview(session: Session, outlook: Outlook, *, limit: int) -> QueueList:
    """Return all queues, each with the first `limit` waiting jobs of every type."""
    usual = usual_seconds(session)
    return QueueList(queues=[_queue(session, outlook, name, limit, usual) for name in sorted(set(QUEUES.values()))])


def _queue(session: Session, outlook: Outlook, name: str, limit: int, usual: dict[str, float]) -> QueueReply:
    beats = outlook.workers.alive(name)
    line = list_waiting_jobs(session, outlook.settings, name, outlook.workers.slots(name))
    shown = [place for place in line if place.position <= limit]
    waiting = (
        select(Job).where(Job.id.in_([place.job_id for place in shown])).options(defer(Job.payload, raiseload=True))
    )
    rows = {job.id: job for job in session.scalars(waiting)}
    by_status = select(Job.type, Job.status, func.count()).where(
        Job.queue == name, Job.status.in_([JobStatus.PENDING, *LEASED])
    )
    counts = {
        (kind, status): count for kind, status, count in session.execute(by_status.group_by(Job.type, Job.status))
    }
    types = [
        QueueType(
            type=kind,
            limit=type_limit(outlook.settings, kind),
            running=sum(counts.get((kind, status), 0) for status in ACTIVE),
            stale=counts.get((kind, JobStatus.STALE), 0),
            pending=counts.get((kind, JobStatus.PENDING), 0),
            usual_seconds=usual.get(kind),
            jobs=[
                QueuedJob(
                    id=place.job_id,
                    name=rows[place.job_id].name,
                    priority=rows[place.job_id].priority,
                    position=place.position,
                    predicted_start=place.predicted_start,
                    not_before=rows[place.job_id].not_before,
                    created_at=rows[place.job_id].created_at,
                )
                for place in shown
                if place.type == kind and place.job_id in rows
            ],
        )
        for kind, queue in QUEUES.items()
        if queue == name
    ]
    workers = None if beats is None else [QueueWorker.model_validate(beat) for beat in beats]
    return QueueReply(queue=name, workers=workers, types=types)
