"""Lists the waiting jobs of a queue, with their positions and predicted starts.

Concurrency limits apply per type. So the position of a job counts only waiting jobs of its type: those with a higher
priority, and older ones with the same priority, even if they may not start yet (`not_before`). The prediction considers
all types of the queue, because they share its workers (`common.jobs.forecast`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, Text, cast, func, select, true
from sqlalchemy.orm import Session

from common.config import Settings
from common.db import Job
from common.jobs.forecast import LeasedJob, WaitingJob, predict_starts
from common.jobs.limits import type_limit
from common.jobs.payloads import QUEUES
from tidal_client.vocabulary import ACTIVE, LEASED, DesiredState, JobStatus, JobType

RECENT = 20
"""Number of newest finished jobs per type whose median duration predicts the duration of unfinished jobs."""

HORIZON = 100
"""Number of waiting jobs per type whose start is predicted; predictions for jobs further back would be useless."""

CountWorkers = Callable[[str], int | None]
"""A function that returns the number of running workers of a queue; None if it is unknown."""


@dataclass(frozen=True)
class QueuePosition:
    """The position and the predicted start of a pending job."""

    job_id: str
    type: str
    position: int
    """Position among the waiting jobs of the same type, counted from 1."""
    predicted_start: datetime | None
    """Predicted time of the claim. None if no worker runs, too many jobs are ahead, or their durations are unknown."""


def list_waiting_jobs(
    session: Session, settings: Settings, queue: str, workers: int | None, wanted: Collection[str] | None = None
) -> list[QueuePosition]:
    """Return the positions of the jobs `wanted` in `queue`.

    If `wanted` is None, the positions of the first HORIZON jobs of each type are returned. `workers` is the number of
    running workers; None if it is unknown.
    """
    order = (Job.priority.desc(), Job.created_at, Job.id)
    line = (
        select(
            Job.id,
            Job.type,
            func.extract("epoch", Job.not_before - func.now()).label("due_in"),
            func.row_number().over(partition_by=Job.type, order_by=order).label("position"),
            Job.priority,
            Job.created_at,
            func.now().label("now"),
        )
        .where(Job.queue == queue, Job.status == JobStatus.PENDING)
        .subquery()
    )
    within_horizon = line.c.position <= HORIZON + 1
    shown = within_horizon if wanted is None else within_horizon | line.c.id.in_(wanted)
    claimed_first = (line.c.priority.desc(), line.c.created_at, line.c.id)
    rows = session.execute(select(line).where(shown).order_by(*claimed_first)).all()
    if not rows:
        return []
    starts: dict[str, float] = {}
    if workers:
        usual = usual_seconds(session)
        starts = predict_starts(
            [WaitingJob(row.id, row.type, float(row.due_in or 0)) for row in rows if row.position <= HORIZON + 1],
            _leased_jobs(session, queue, usual),
            limits={job_type.value: type_limit(settings, job_type) for job_type in JobType},
            workers=workers,
            usual_seconds=usual,
            stop_at={row.id for row in rows if row.position == HORIZON + 1},
        )
    places = []
    for row in rows:
        if row.position <= HORIZON if wanted is None else row.id in wanted:
            start = starts.get(row.id)
            when = None if start is None else row.now + timedelta(seconds=start)
            places.append(QueuePosition(row.id, row.type, row.position, when))
    return places


def queue_positions(
    session: Session, settings: Settings, workers: CountWorkers, job_ids: Iterable[str]
) -> dict[str, QueuePosition]:
    """Return {job id: position} for those jobs of `job_ids` that wait."""
    wanted = set(job_ids)
    if not wanted:
        return {}
    lines = (list_waiting_jobs(session, settings, queue, workers(queue), wanted) for queue in set(QUEUES.values()))
    return {place.job_id: place for line in lines for place in line}


def usual_seconds(session: Session) -> dict[str, float]:
    """Return {job type: median seconds from first claim to completion}; types without completed jobs are missing."""
    names = cast([job_type.value for job_type in JobType], ARRAY(Text))
    types = func.unnest(names).table_valued("type").render_derived(name="types")
    took = func.extract("epoch", Job.finished_at - Job.started_at).label("seconds")
    recent = (
        select(took)
        .where(Job.type == types.c.type, Job.status == JobStatus.COMPLETED)
        .order_by(Job.finished_at.desc())
        .limit(RECENT)
        .lateral("recent")
    )
    median = func.percentile_cont(0.5).within_group(recent.c.seconds)
    query = select(types.c.type, median).select_from(types.join(recent, true())).group_by(types.c.type)
    return {job_type: float(seconds) for job_type, seconds in session.execute(query)}


def _leased_jobs(session: Session, queue: str, usual: dict[str, float]) -> list[LeasedJob]:
    since_progress = func.extract("epoch", func.now() - Job.progress_at)
    since_start = func.extract("epoch", func.now() - Job.started_at)
    query = select(
        Job.type, Job.status, Job.desired_state, Job.progress_eta_seconds, since_progress, since_start
    ).where(Job.status.in_(LEASED), Job.queue == queue)
    leased = []
    for job_type, status, desired, eta, progress_age, running_for in session.execute(query):
        remaining: float | None = None
        if status in ACTIVE and desired != DesiredState.RUN:
            remaining = 0.0  # the job was asked to end or to pause
        elif status == JobStatus.RUNNING and eta is not None and progress_age is not None:
            remaining = max(0.0, eta - float(progress_age))
        elif status in ACTIVE and job_type in usual:
            remaining = max(0.0, usual[job_type] - float(running_for))
        leased.append(LeasedJob(job_type, remaining, on_worker=status in ACTIVE))
    return leased
