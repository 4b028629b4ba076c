"""The outbox relay: publishes the rows of the outbox table to Redis a few milliseconds after their commit.

PostgreSQL's LISTEN and NOTIFY report a commit. The relay also polls every second, so that no message is lost after an
outage of Redis or when a connection pooler drops notifications. The channels and streams to which a row is published
are chosen in `common.jobs.outbox` and `common.redis.publisher`.
"""

from __future__ import annotations

import threading
from typing import Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from common.errors import UnavailableError
from common.jobs.outbox import BATCH, CHANNEL, Publisher, relay
from common.logging import get_logger

LISTEN = sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL))
WAITING = sql.SQL("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)")
"""The query that looks for unpublished rows. It is ten times faster than a transaction that locks the rows."""

log = get_logger(__name__)


class OutboxRelay:
    """Publishes rows until `stop` is set.

    `poll_seconds` is the longest time between two polls, and therefore also the longest time until the relay notices
    `stop`.
    """

    def __init__(
        self, engine: Engine, publisher: Publisher, stop: threading.Event, *, poll_seconds: float = 1.0
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._stop = stop
        self._poll_seconds = poll_seconds
        self._error: str | None = None
        """The error of the newest attempt to publish; None if it succeeded."""
        self.published = 0
        """Number of rows published since the start."""

    def run(self) -> None:
        """Listen for notifications and publish rows until `stop` is set, even after outages."""
        while not self._stop.is_set():
            try:
                self._listen()
            except (SQLAlchemyError, psycopg.Error) as error:
                self._log_outage(f"database: {error}")
            except Exception:
                log.exception("the outbox relay failed with an unexpected error and tries again")
            self._stop.wait(self._poll_seconds)

    def _listen(self) -> None:
        pooled = self._engine.raw_connection()
        listener = cast("psycopg.Connection[Any]", pooled.driver_connection)
        pooled.detach()  # The connection pool must not reuse this connection, because it listens.
        with listener:
            listener.autocommit = True
            listener.execute(LISTEN)
            while not self._stop.is_set():
                if _has_unpublished_rows(listener):
                    self._publish_all()
                for _ in listener.notifies(timeout=self._poll_seconds, stop_after=1):
                    pass

    def _publish_all(self) -> None:
        """Publish until no row is left. If Redis does not answer, the rows stay in the table for the next attempt."""
        try:
            while (count := relay(self._engine, self._publisher, wait=True)) > 0:
                self.published += count
                if count < BATCH or self._stop.is_set():
                    break
        except UnavailableError as error:
            self._log_outage(error.message)
            self._stop.wait(self._poll_seconds)
        else:
            if self._error is not None:
                log.info("the outbox relay works again")
                self._error = None

    def _log_outage(self, error: str) -> None:
        """Log the beginning of an outage, but not each failed attempt."""
        if self._error is None:
            log.warning("the outbox cannot be published; the relay keeps trying", reason=error)
        self._error = error


def _has_unpublished_rows(listener: psycopg.Connection[Any]) -> bool:
    row = listener.execute(WAITING).fetchone()
    return row is not None and bool(row[0])
