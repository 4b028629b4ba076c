"""The outbox: a transaction writes its messages for Redis as rows, which a relay publishes after the commit.

    add_notifications, add_job_update, add_owner_notification   called inside the transaction of the change
    relay(engine, publisher)   called by the health process, and by the api right after its commit

Each message is delivered at least once: if a relay dies between publishing and its commit, the messages are published
again. Repeated notifications do no harm. The publisher recognises a repeated job-update by the id of its row and
ignores it. Only one relay works at a time and publishes the rows in the order of their ids. All rows of a job are
inserted under the lock of the job's row, so the updates of a job arrive in the order of their commits.
"""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.orm import Session

from common.db import Job, Outbox, session_factory
from common.errors import UnavailableError
from common.jobs.documents import job_document
from common.jobs.sql import RELAY, now_minus, try_lock, wait_lock
from common.logging import get_logger

CHANNEL = "tidal_outbox"
"""NOTIFY channel that wakes the relay when a transaction commits."""
KEEP_SECONDS = 3600.0
"""Seconds for which published rows are kept, for troubleshooting."""
BATCH = 200

log = get_logger(__name__)


class Publisher(Protocol):
    """Publishes the messages. Each method raises UnavailableError when Redis does not answer.

    Any other exception means that this message cannot be published.
    """

    def notify_worker(self, queue: str) -> None:
        """Notify one worker of `queue`."""

    def update(self, outbox_id: int, document: dict[str, Any], *, final: bool) -> None:
        """Append a job-update to the streams; `final` if the job has ended. A repeated `outbox_id` has no effect."""

    def notify_owner(self, job_id: str) -> None:
        """Notify the supervisor of `job_id` that the desired state has changed."""

    def undelivered(self, queue: str) -> int:
        """Return the number of notifications of `queue` that no worker has received yet."""


def add_notifications(session: Session, queue: str, count: int = 1) -> None:
    """Add `count` notifications for `queue`, to be published after the commit."""
    if count > 0:
        _add(session, *({"kind": "doorbell", "queue": queue} for _ in range(count)))


def add_job_update(session: Session, job: Job, event: str) -> None:
    """Add a job-update with the current state of `job`. The caller must hold the lock of the job's row."""
    _add(session, {"kind": "job-update", "job_id": job.id, "payload": {**job_document(job), "event": event}})


def add_owner_notification(session: Session, job: Job) -> None:
    """Notify the owner that the desired state has changed. If this message is lost, the owner notices by polling."""
    _add(session, {"kind": "wish", "job_id": job.id, "payload": {}})


def _add(session: Session, *rows: dict[str, Any]) -> None:
    # Use only one round trip, because other claims may wait for the lock of a job type that this transaction holds.
    session.execute(insert(Outbox).returning(func.pg_notify(CHANNEL, "")), list(rows))


def relay(engine: Engine, publisher: Publisher, *, limit: int = BATCH, wait: bool = False) -> int:
    """Publish up to `limit` waiting rows and return how many; 0 if another relay is running.

    With `wait`, it first waits for the other relay, and then also publishes rows that were committed during this wait.
    Raises UnavailableError when Redis does not answer; rows that were already published are marked as published, and
    the other rows remain for the next call. A row that cannot be published for another reason is logged and also
    marked, so that it does not block later rows. The next change of the job brings the streams up to date again. The
    transaction stays open during the writes to Redis, because its lock preserves the order; the Redis client's timeouts
    limit its duration.
    """
    outage: UnavailableError | None = None
    published: list[int] = []
    with session_factory(engine).begin() as session:
        if wait:
            wait_lock(session, RELAY)
        elif not try_lock(session, RELAY):
            return 0
        rows = session.scalars(select(Outbox).where(Outbox.published_at.is_(None)).order_by(Outbox.id).limit(limit))
        for row in rows.all():
            try:
                _publish(publisher, row)
            except UnavailableError as error:
                outage = error
                break
            except Exception:
                log.exception("an outbox row cannot be published and is skipped", row=row.id, kind=row.kind)
            published.append(row.id)
        if published:
            session.execute(update(Outbox).where(Outbox.id.in_(published)).values(published_at=func.now()))
    if outage is not None:
        raise outage
    return len(published)


def _publish(publisher: Publisher, row: Outbox) -> None:
    if row.kind == "doorbell" and row.queue is not None:
        publisher.notify_worker(row.queue)
    elif row.kind == "wish" and row.job_id is not None:
        publisher.notify_owner(row.job_id)
    else:
        publisher.update(row.id, row.payload, final=row.payload.get("finishedAt") is not None)


def publish_after_commit(engine: Engine, publisher: Publisher) -> None:
    """Publish the rows that a request has just committed.

    Never raises: if publishing fails, the health process publishes the rows.
    """
    try:
        relay(engine, publisher)
    except Exception:
        # The request itself has succeeded, and the relay of the health process will try again.
        log.warning("the outbox was not published after a commit; the relay tries again", exc_info=True)


def prune(session: Session, *, keep_seconds: float = KEEP_SECONDS, limit: int = 5000) -> int:
    """Delete the rows that were published more than `keep_seconds` ago; return how many."""
    old = select(Outbox.id).where(Outbox.published_at < now_minus(keep_seconds)).limit(limit)
    deleted = session.scalars(delete(Outbox).where(Outbox.id.in_(old)).returning(Outbox.id))
    return len(deleted.all())
