"""The outbox relay: publishes rows a few milliseconds after their commit, notified by LISTEN and NOTIFY.

It also polls every second, so that no message is lost when a connection pooler drops notifications, or after an outage
of Redis. Leaves out: what is published where (`common.jobs.outbox`, `common.redis.publisher`).
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
"""The query of a poll; it is ten times as fast as a transaction of the relay."""

log = get_logger(__name__)


class OutboxRelay:
    """Publishes until `stop` is set; it reacts to that within `poll_seconds`, the longest time between two polls."""

    def __init__(
        self, engine: Engine, publisher: Publisher, stop: threading.Event, *, poll_seconds: float = 1.0
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._stop = stop
        self._poll_seconds = poll_seconds
        self._error: str | None = None
        """The error of the newest try; None if it succeeded."""
        self.published = 0
        """Number of rows published since the start."""

    def run(self) -> None:
        """Listen and publish; continues after outages of the database and of Redis."""
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
        pooled.detach()  # the pool must not reuse a connection that listens
        with listener:
            listener.autocommit = True
            listener.execute(LISTEN)
            while not self._stop.is_set():
                if _has_unpublished_rows(listener):
                    self._publish_all()
                for _ in listener.notifies(timeout=self._poll_seconds, stop_after=1):
                    pass

    def _publish_all(self) -> None:
        """Publish until no row waits. If Redis does not answer, the rows stay for the next try."""
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
        """Log an outage once, not at every try."""
        if self._error is None:
            log.warning("the outbox cannot be published; the relay keeps trying", reason=error)
        self._error = error


def _has_unpublished_rows(listener: psycopg.Connection[Any]) -> bool:
    row = listener.execute(WAITING).fetchone()
    return row is not None and bool(row[0])
