"""The periodic work on jobs: reap, re-ring, prune, publish.

The health process calls `sweep` every reaper_seconds; the Celery task `tidal.health.sweep` calls `sweep_once` by hand
when that loop is down. Two at once are harmless: an advisory lock lets one act.
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
from common.jobs.sql import SWEEP, idle_transaction_limit, now_minus, seconds, try_lock
from common.jobs.submission import IDEMPOTENCY_SECONDS, forget_idempotency_keys
from common.logging import get_logger
from common.redis.publisher import RedisPublisher
from tidal_client.vocabulary import LEASED, JobStatus

MAX_NOTIFICATIONS = 64
"""Per queue and sweep."""

log = get_logger(__name__)


@dataclass(frozen=True)
class SweepReport:
    """What one sweep did. `acted` is False when another sweep held the lock."""

    acted: bool
    reaped: Reaped = field(default_factory=Reaped)
    notifications: int = 0
    pruned: int = 0
    forgotten: int = 0
    published: int = 0
    due_in: float | None = None
    """Seconds until the next lease, or quarantine, is over if nobody renews it; None: there is none."""

    @property
    def quiet(self) -> bool:
        """Whether nothing but routine happened."""
        return self.reaped == Reaped() and not self.notifications


def run_sweep(
    engine: Engine, publisher: Publisher, settings: Settings, *, contact: DatabaseContact | None = None
) -> SweepReport:
    """One sweep. Database errors pass through; Redis being away only postpones what needs it.

    `contact` keeps the reaper still after the database was lost or this process stood still; without one (a single
    sweep by hand) the start time of the PostgreSQL server is asked instead. When there is nothing to do it costs
    one query.
    """
    alive = idle_transaction_limit(max(0.5, settings.lease_seconds / 6))
    with session_factory(engine).begin() as session:
        look = select(func.pg_try_advisory_xact_lock(SWEEP), _anything_to_do(), _due_in(settings), alive)
        free, due, due_in, _ = session.execute(look).one()
    due_in = None if due_in is None else float(due_in)
    if contact is not None:
        contact.record_answer()
    if not (free and due):
        return SweepReport(acted=free, due_in=due_in)
    waiting = _waiting_notifications(publisher)
    with session_factory(engine).begin() as session:
        session.execute(select(alive))
        if not try_lock(session, SWEEP):
            return SweepReport(acted=False, due_in=due_in)
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
        log.warning("outbox waits for Redis", error=error.message)
    return SweepReport(True, reaped, notifications, pruned, forgotten, published, due_in)


def run_single_sweep(settings: Settings | None = None) -> SweepReport:
    """A single sweep with connections of its own."""
    settings = settings or get_settings()
    engine = make_engine(settings.database_url, application_name="tidal-sweep", pool_size=1)
    publisher = RedisPublisher(settings.redis_url, stream_max_length=settings.stream_max_length)
    try:
        return run_sweep(engine, publisher, settings)
    finally:
        publisher.close()
        engine.dispose()


def _anything_to_do() -> ColumnElement[bool]:
    """Whether there may be work: wider than what each part looks for itself, and every branch has an index."""
    return or_(
        exists().where(Job.status.in_(LEASED), Job.lease_expires_at < func.now()),
        exists().where(Job.status == JobStatus.PENDING),
        exists().where(Outbox.published_at.is_(None)),
        exists().where(Outbox.published_at < now_minus(outbox.KEEP_SECONDS)),
        exists().where(Job.idempotency_key.is_not(None), Job.created_at < now_minus(IDEMPOTENCY_SECONDS)),
    )


def _due_in(settings: Settings) -> ScalarSelect[Any]:
    """Seconds to the next moment at which the reaper has something to say."""
    quarantine = Job.lease_expires_at + seconds(settings.quarantine_seconds)
    at = case((Job.status == JobStatus.STALE, quarantine), else_=Job.lease_expires_at)
    until = func.extract("epoch", func.min(at) - func.now())
    return select(until).where(Job.status.in_(LEASED), at > func.now()).scalar_subquery()


def _waiting_notifications(publisher: Publisher) -> dict[str, int]:
    """Doorbells that lie in Redis, per queue; empty when Redis is away (ringing would be in vain)."""
    try:
        return {queue: publisher.undelivered(queue) for queue in set(QUEUES.values())}
    except UnavailableError:
        return {}


def _server_settled(session: Session, settings: Settings) -> bool:
    up = session.scalar(select(func.extract("epoch", func.clock_timestamp() - func.pg_postmaster_start_time())))
    return up is not None and float(up) >= settings.reaper_contact_seconds


def _renotify(session: Session, settings: Settings, queue: str, waiting: int) -> int:
    """Ring for claimable jobs whose doorbell seems lost: long pending, or just become due.

    As many as could be claimed now, less the doorbells that still lie in Redis, so that they never pile up while
    no worker is there.
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
