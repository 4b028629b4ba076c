"""The outbox: messages for Redis are rows of the transaction they tell about; a relay publishes them afterwards.

    ring / announce / push_wish   inside the transaction of the change
    relay(engine, publisher)      by the health process, and by the api right after its commit

Delivery is at least once: a relay that dies between publishing and its commit repeats. Doorbells may repeat freely;
the publisher drops a repeated job-update by the id of its row. One relay acts at a time, in order of id, and all rows
of one job are inserted under its row lock, so the updates of a job arrive in the order of their commits.
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
"""NOTIFY channel that wakes the relay at the commit."""
KEEP_SECONDS = 3600.0
"""Published rows stay so long, for questions at 3 a.m."""
BATCH = 200

log = get_logger(__name__)


class Publisher(Protocol):
    """Where the messages go. Each method raises UnavailableError when Redis is away.

    Anything else that they raise is a fault of the one message.
    """

    def ring(self, queue: str) -> None:
        """Wake one worker of `queue`."""

    def update(self, outbox_id: int, document: dict[str, Any], *, final: bool) -> None:
        """Append a job-update to the streams; `final` when the job has ended. Repeating `outbox_id` changes nothing."""

    def wish(self, job_id: str) -> None:
        """Tell the supervisor of `job_id` that its desired_state has changed."""

    def waiting(self, queue: str) -> int:
        """Doorbells of `queue` that no worker has taken yet."""


def ring(session: Session, queue: str, count: int = 1) -> None:
    """`count` doorbells for `queue`, to go out after the commit."""
    if count > 0:
        _add(session, *({"kind": "doorbell", "queue": queue} for _ in range(count)))


def announce(session: Session, job: Job, event: str) -> None:
    """A job-update with the row as it is now. The caller holds the row lock."""
    _add(session, {"kind": "job-update", "job_id": job.id, "payload": {**job_document(job), "event": event}})


def push_wish(session: Session, job: Job) -> None:
    """Push a changed wish to the owner, who would otherwise poll it."""
    _add(session, {"kind": "wish", "job_id": job.id, "payload": {}})


def _add(session: Session, *rows: dict[str, Any]) -> None:
    # One round trip: claims queue behind each other while these rows are written.
    session.execute(insert(Outbox).returning(func.pg_notify(CHANNEL, "")), list(rows))


def relay(engine: Engine, publisher: Publisher, *, limit: int = BATCH, wait: bool = False) -> int:
    """Publish up to `limit` waiting rows; returns how many went out, 0 when another relay is at it.

    With `wait` it waits for the other one instead, and then sees what that one could not see yet.

    Raises UnavailableError when Redis is away; what went out before is marked, the rest stays for the next pass. A row
    that cannot be published is logged and marked like the others, so that those behind it go out; streams are told
    again with the next change of its job.
    The transaction stays open while Redis is written: its lock keeps the order, and the client's timeouts bound it.
    """
    trouble: UnavailableError | None = None
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
                trouble = error
                break
            except Exception:
                log.exception("outbox row cannot be published and is left out", row=row.id, kind=row.kind)
            published.append(row.id)
        if published:
            session.execute(update(Outbox).where(Outbox.id.in_(published)).values(published_at=func.now()))
    if trouble is not None:
        raise trouble
    return len(published)


def _publish(publisher: Publisher, row: Outbox) -> None:
    if row.kind == "doorbell" and row.queue is not None:
        publisher.ring(row.queue)
    elif row.kind == "wish" and row.job_id is not None:
        publisher.wish(row.job_id)
    else:
        publisher.update(row.id, row.payload, final=row.payload.get("finishedAt") is not None)


def publish_after_commit(engine: Engine, publisher: Publisher) -> None:
    """Publish at once what a request has just committed. Never raises: the relay of health repeats what failed."""
    try:
        relay(engine, publisher)
    except Exception:
        # The request has succeeded; whatever is wrong here is the relay's to repeat.
        log.warning("outbox not published after commit; the relay will", exc_info=True)


def prune(session: Session, *, keep_seconds: float = KEEP_SECONDS, limit: int = 5000) -> int:
    """Delete published rows older than `keep_seconds`; returns how many."""
    old = select(Outbox.id).where(Outbox.published_at < now_minus(keep_seconds)).limit(limit)
    gone = session.scalars(delete(Outbox).where(Outbox.id.in_(old)).returning(Outbox.id))
    return len(gone.all())
