"""Changes the status of jobs. Every change goes through `move`, which also writes the event and the outbox rows.

`lock` locks the job's row. `move` makes a transition of the state machine; its UPDATE has an effect only if id, attempt
and status are still those of the locked row. `add_event` writes an event without a change of status. Nothing here
commits.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from common.db import Job, JobEvent
from common.errors import LeaseLostError, NotFoundError
from common.jobs import outbox
from common.jobs.status import StatusWriter, may_move
from tidal_client.vocabulary import LEASED, TERMINAL, JobStatus

ActorKind = Literal["api", "worker", "reaper", "system"]
_ACTOR_OF_WRITER: dict[StatusWriter, ActorKind] = {
    StatusWriter.API: "api",
    StatusWriter.CLAIMER: "worker",
    StatusWriter.OWNER: "worker",
    StatusWriter.REAPER: "reaper",
}


def lock(session: Session, job_id: str) -> Job:
    """Lock the row of a job until the transaction ends. Return the job, which is read again from the database.

    Raises NotFoundError when there is no such job.
    """
    query = select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    job = session.scalars(query).one_or_none()
    if job is None:
        raise NotFoundError(f"there is no job {job_id!r}")
    return job


def move(
    session: Session,
    job: Job,
    target: JobStatus,
    *,
    writer: StatusWriter,
    event: str,
    details: dict[str, Any] | None = None,
    **fields: Any,
) -> Job:
    """Move the locked `job` to `target`, write its event and its job-update, and return the changed row.

    `fields` are columns that are set in the same UPDATE. The lease columns are cleared if `target` has no lease, and
    `finished_at` is set if `target` is terminal. If the move frees a slot or makes a job claimable, a worker is
    notified. A trigger in the database checks the transition again, using the writer in the column `moved_by`.

    Raises ValueError for a transition that `writer` may not make, LeaseLostError when the row has changed since `job`
    was read.
    """
    source = JobStatus(job.status)
    if not may_move(source, target, writer):
        raise ValueError(f"job {job.id}: the {writer} may not move it from {source} to {target}")
    values: dict[str, Any] = {"status": target, "moved_by": writer, "updated_at": func.now()}
    if target not in LEASED:
        values |= {"lease_owner": None, "lease_expires_at": None}
    if target is not JobStatus.STALE:
        values |= {"status_before_stale": None, "stale_at": None}
    if target in TERMINAL:
        values["finished_at"] = func.now()
    moved = session.scalars(
        update(Job)
        .where(Job.id == job.id, Job.attempt == job.attempt, Job.status == source)
        .values(**(values | fields))
        .returning(Job),
        execution_options={"populate_existing": True, "synchronize_session": False},
    ).one_or_none()
    if moved is None:
        raise LeaseLostError(f"job {job.id} is no longer {source} at attempt {job.attempt}")
    write_event(session, moved, event, actor=_ACTOR_OF_WRITER[writer], source=source, target=target, details=details)
    outbox.add_job_update(session, moved, event)
    if target is JobStatus.PENDING or (source in LEASED and target not in LEASED):
        outbox.add_notifications(session, moved.queue)
    return moved


def add_event(
    session: Session,
    job: Job,
    event: str,
    *,
    actor: ActorKind,
    details: dict[str, Any] | None = None,
    publish: bool = True,
) -> None:
    """Write an event of the locked `job` that does not change its status; with `publish` also a job-update."""
    write_event(session, job, event, actor=actor, source=None, target=None, details=details)
    if publish:
        outbox.add_job_update(session, job, event)


def write_event(
    session: Session,
    job: Job,
    event: str,
    *,
    actor: ActorKind,
    source: JobStatus | None,
    target: JobStatus | None,
    details: dict[str, Any] | None,
) -> None:
    """Insert one row into `job_events`."""
    row = {
        "job_id": job.id,
        "attempt": job.attempt,
        "event": event,
        "actor": actor,
        "from_status": source,
        "to_status": target,
        "details": details or {},
    }
    session.execute(insert(JobEvent).values(row))
