"""A maintenance pass is the periodic work on jobs: run the reaper, repeat lost notifications, prune and publish the
outbox.

The health process calls `run_maintenance` every `reaper_seconds`. While the health process is down, an operator can
start a single pass with the Celery task `tidal.health.sweep` or the command `tidal db sweep`. Concurrent passes are
harmless, because an advisory lock lets only one of them act.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Engine, ScalarSelect, case, exists, func, or_, select, text
from sqlalchemy.orm import Session

from common.config import Settings, get_settings
from common.db import Job, Outbox, make_engine, session_factory
from common.errors import UnavailableError
from common.jobs import outbox
from common.jobs.claiming import eligible
from common.jobs.limits import free_slots
from common.jobs.outbox import Publisher
from common.jobs.payloads import QUEUES
from common.jobs.reaper import DatabaseContact, Reaped, reap
from common.jobs.sql import MAINTENANCE, idle_transaction_limit, now_minus, seconds, try_lock
from common.jobs.submission import IDEMPOTENCY_SECONDS, forget_idempotency_keys
from common.logging import get_logger
from common.redis.publisher import RedisPublisher
from tidal_client.vocabulary import LEASED, JobStatus

MAX_NOTIFICATIONS = 64
"""Largest number of notifications that one maintenance pass repeats per queue."""

log = get_logger(__name__)


@dataclass(frozen=True)
class MaintenanceReport:
    """The results of one maintenance pass."""

    acted: bool
    """False if this pass did nothing because another pass held the lock."""
    reaped: Reaped = field(default_factory=Reaped)
    notifications: int = 0
    """Number of repeated notifications."""
    pruned: int = 0
    """Number of deleted outbox rows."""
    forgotten: int = 0
    """Number of cleared idempotency keys."""
    published: int = 0
    """Number of published outbox rows."""
    due_in: float | None = None
    """Seconds until the next lease expires or the next quarantine of a stale job ends; None if no job is leased."""

    @property
    def quiet(self) -> bool:
        """True if the pass changed no job and repeated no notification."""
        return self.reaped == Reaped() and not self.notifications


def run_maintenance(
    engine: Engine, publisher: Publisher, settings: Settings, *, contact: DatabaseContact | None = None
) -> MaintenanceReport:
    """Do one maintenance pass and return its results. A pass with nothing to do costs one query.

    `contact` keeps the reaper inactive after the database was unavailable or this process was suspended. Without
    `contact` (a single pass that an operator started), the reaper is inactive until the PostgreSQL server has been up
    for `reaper_contact_seconds`. If Redis is unavailable, the work that needs Redis is left to the next pass. Raises
    the errors of the database.
    """
    idle_limit = idle_transaction_limit(max(0.5, settings.lease_seconds / 6))
    with session_factory(engine).begin() as session:
        check = select(func.pg_try_advisory_xact_lock(MAINTENANCE), _anything_to_do(), _due_in(settings), idle_limit)
        free, due, due_in, _ = session.execute(check).one()
    due_in = None if due_in is None else float(due_in)
    if contact is not None:
        contact.record_answer()
    if not (free and due):
        return MaintenanceReport(acted=free, due_in=due_in)
    waiting = _waiting_notifications(publisher)
    with session_factory(engine).begin() as session:
        session.execute(select(idle_limit))
        if not try_lock(session, MAINTENANCE):
            return MaintenanceReport(acted=False, due_in=due_in)
        if contact is None:
            settled = _server_settled(session, settings)
        else:
            settled = contact.settled(settings.reaper_contact_seconds)
        reaped = reap(session, settings) if settled else Reaped()
        notifications = sum(_renotify(session, settings, queue, count) for queue, count in waiting.items())
        pruned = outbox.prune(session)
        forgotten = forget_idempotency_keys(session)
    if contact is not None:
        contact.record_answer()
    published = 0
    try:
        published = outbox.relay(engine, publisher)
    except UnavailableError as error:
        log.warning("the outbox is not published because Redis does not answer", error=error.message)
    return MaintenanceReport(True, reaped, notifications, pruned, forgotten, published, due_in)


def run_maintenance_once(settings: Settings | None = None) -> MaintenanceReport:
    """Do one maintenance pass, with new connections to PostgreSQL and Redis."""
    settings = settings or get_settings()
    engine = make_engine(settings.database_url, application_name="tidal-maintenance", pool_size=1)
    publisher = RedisPublisher(settings.redis_url, stream_max_length=settings.stream_max_length)
    try:
        return run_maintenance(engine, publisher, settings)
    finally:
        publisher.close()
        engine.dispose()


def _anything_to_do() -> ColumnElement[bool]:
    """Return an SQL condition that is true if a pass may have work; every part of the condition uses an index."""
    return or_(
        exists().where(Job.status.in_(LEASED), Job.lease_expires_at < func.now()),
        exists().where(Job.status == JobStatus.PENDING),
        exists().where(Outbox.published_at.is_(None)),
        exists().where(Outbox.published_at < now_minus(outbox.KEEP_SECONDS)),
        exists().where(Job.idempotency_key.is_not(None), Job.created_at < now_minus(IDEMPOTENCY_SECONDS)),
    )


def _due_in(settings: Settings) -> ScalarSelect[Any]:
    """Select the seconds until the next lease expires, or the quarantine of the next stale job ends."""
    quarantine = Job.lease_expires_at + seconds(settings.quarantine_seconds)
    deadline = case((Job.status == JobStatus.STALE, quarantine), else_=Job.lease_expires_at)
    until = func.extract("epoch", func.min(deadline) - func.now())
    return select(until).where(Job.status.in_(LEASED), deadline > func.now()).scalar_subquery()


def _waiting_notifications(publisher: Publisher) -> dict[str, int]:
    """Return {queue: number of undelivered notifications}; empty if Redis does not answer."""
    try:
        return {queue: publisher.undelivered(queue) for queue in set(QUEUES.values())}
    except UnavailableError:
        return {}


def _server_settled(session: Session, settings: Settings) -> bool:
    up = session.scalar(select(func.extract("epoch", func.clock_timestamp() - func.pg_postmaster_start_time())))
    return up is not None and float(up) >= settings.reaper_contact_seconds


def _renotify(session: Session, settings: Settings, queue: str, waiting: int) -> int:
    """Repeat notifications for claimable jobs whose notification may be lost; return the number of repeated ones.

    A notification may be lost if its job has been due for longer than `outbox_seconds`, or if its `not_before` has just
    passed. If there is such a job, notifications are added until there are as many as jobs that could be claimed now.
    The `waiting` notifications, which no worker has received yet, count as well, so that notifications do not
    accumulate while there is no worker.
    """
    due_for = func.greatest(Job.updated_at, Job.not_before)
    overdue = (due_for < now_minus(settings.outbox_seconds)) | (Job.not_before >= now_minus(settings.outbox_seconds))
    if session.scalar(select(text("1")).where(*eligible(queue), overdue).limit(1)) is None:
        return 0
    counts = select(Job.type, func.count()).where(*eligible(queue)).group_by(Job.type)
    pending = dict(session.execute(counts).all())
    free = free_slots(session, settings, pending)
    claimable = sum(min(pending[job_type], places or MAX_NOTIFICATIONS) for job_type, places in free.items())
    count = max(0, min(claimable, MAX_NOTIFICATIONS) - waiting)
    outbox.add_notifications(session, queue, count)
    return count
