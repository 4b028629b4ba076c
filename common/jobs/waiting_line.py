"""The queue as its users see it: who waits where, and when each will probably start.

Limits hold per type, so a position counts those of the same type that are claimed before (higher priority, then
older); jobs that may not start yet (`not_before`) stand in line too. The prediction looks at all types of the queue,
because they share its workers (`common.jobs.forecast`).
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
"""Finished jobs of a type that say what one usually takes."""

HORIZON = 100
"""Jobs of each type from the front of its line whose start is predicted; a guess about later ones is worth nothing."""

CountWorkers = Callable[[str], int | None]
"""Workers alive per queue; None: not known."""


@dataclass(frozen=True)
class QueuePosition:
    """Where a pending job stands."""

    job_id: str
    type: str
    position: int
    """1 is next of its type."""
    predicted_start: datetime | None
    """None: cannot be said (no worker, too little is known about those before it, or they are too many)."""


def list_waiting_jobs(
    session: Session, settings: Settings, queue: str, workers: int | None, wanted: Collection[str] | None = None
) -> list[QueuePosition]:
    """Who waits in `queue`, in the order of claims: `wanted`, or the first HORIZON of each type.

    `workers` is how many are alive, None if not known.
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
    near = line.c.position <= HORIZON + 1
    shown = near if wanted is None else near | line.c.id.in_(wanted)
    claimed_first = (line.c.priority.desc(), line.c.created_at, line.c.id)
    rows = session.execute(select(line).where(shown).order_by(*claimed_first)).all()
    if not rows:
        return []
    starts: dict[str, float] = {}
    if workers:
        usual = usual_seconds(session)
        starts = predict_starts(
            [WaitingJob(row.id, row.type, float(row.due_in or 0)) for row in rows if row.position <= HORIZON + 1],
            _busy(session, queue, usual),
            limits={kind.value: type_limit(settings, kind) for kind in JobType},
            workers=workers,
            usual_seconds=usual,
            last={row.id for row in rows if row.position == HORIZON + 1},
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
    """The places of these jobs; those that do not wait are missing."""
    wanted = set(job_ids)
    if not wanted:
        return {}
    lines = (list_waiting_jobs(session, settings, queue, workers(queue), wanted) for queue in set(QUEUES.values()))
    return {place.job_id: place for line in lines for place in line}


def usual_seconds(session: Session) -> dict[str, float]:
    """Median time from first claim to completion of the last jobs per type; types without one are missing."""
    names = cast([kind.value for kind in JobType], ARRAY(Text))
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
    return {kind: float(seconds) for kind, seconds in session.execute(query)}


def _busy(session: Session, queue: str, usual: dict[str, float]) -> list[LeasedJob]:
    since_progress = func.extract("epoch", func.now() - Job.progress_at)
    since_start = func.extract("epoch", func.now() - Job.started_at)
    query = select(
        Job.type, Job.status, Job.desired_state, Job.progress_eta_seconds, since_progress, since_start
    ).where(Job.status.in_(LEASED), Job.queue == queue)
    found = []
    for kind, status, wish, eta, beaten, started in session.execute(query):
        left: float | None = None
        if status in ACTIVE and wish != DesiredState.RUN:
            left = 0.0  # on its way out
        elif status == JobStatus.RUNNING and eta is not None and beaten is not None:
            left = max(0.0, eta - float(beaten))
        elif status in ACTIVE and kind in usual:
            left = max(0.0, usual[kind] - float(started))
        found.append(LeasedJob(kind, left, on_worker=status in ACTIVE))
    return found
