"""Where a pending job stands in line: 1 is next of its type.

Limits hold per type, so a job waits only for those of its own type that are before it (higher priority, then older).
Jobs that may not start yet (`not_before`) stand in line too.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.db import Job
from common.jobs.status import JobStatus


def positions(session: Session, job_ids: Iterable[str] | None = None) -> dict[str, int]:
    """Position of each pending job (of `job_ids`, or all); jobs that do not wait are missing."""
    order = func.row_number().over(
        partition_by=(Job.queue, Job.type), order_by=(Job.priority.desc(), Job.created_at, Job.id)
    )
    line = select(Job.id, order.label("position")).where(Job.status == JobStatus.PENDING).subquery()
    query = select(line.c.id, line.c.position)
    if job_ids is not None:
        wanted = list(job_ids)
        if not wanted:
            return {}
        query = query.where(line.c.id.in_(wanted))
    return dict(session.execute(query).all())
