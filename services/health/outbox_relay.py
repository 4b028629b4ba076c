"""The outbox relay: publishes rows a few milliseconds after their commit, woken by LISTEN / NOTIFY.

It also looks by itself every second, so that a pooler that swallows notifications, or Redis coming back, costs one
second and not a message. Leaves out: what is published where (`common.jobs.outbox`, `common.redis.publisher`).
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
"""Cheap check that polls use: a transaction of the relay takes ten times as long."""

log = get_logger(__name__)


class OutboxRelay:
    """Runs until `stop` is set, which it notices within `poll_seconds`, the longest time between two polls."""

    def __init__(
        self, engine: Engine, publisher: Publisher, stop: threading.Event, *, poll_seconds: float = 1.0
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._stop = stop
        self._poll_seconds = poll_seconds
        self._trouble: str | None = None
        self.published = 0
        """Number of rows published since the start."""

    def run(self) -> None:
        """Listen and publish; database and Redis may go away and come back."""
        while not self._stop.is_set():
            try:
                self._listen()
            except (SQLAlchemyError, psycopg.Error) as error:
                self._note(f"database: {error}")
            except Exception:
                log.exception("outbox relay stumbled")
            self._stop.wait(self._poll_seconds)

    def _listen(self) -> None:
        pooled = self._engine.raw_connection()
        listener = cast("psycopg.Connection[Any]", pooled.driver_connection)
        pooled.detach()  # ours alone: closed at the end, not given back while it listens
        with listener:
            listener.autocommit = True
            listener.execute(LISTEN)
            while not self._stop.is_set():
                if _anything_waits(listener):
                    self._drain()
                for _ in listener.notifies(timeout=self._poll_seconds, stop_after=1):
                    pass

    def _drain(self) -> None:
        """Publish until nothing waits. While Redis is away the rows wait, and the next look tries again."""
        try:
            while (count := relay(self._engine, self._publisher, wait=True)) > 0:
                self.published += count
                if count < BATCH or self._stop.is_set():
                    break
        except UnavailableError as error:
            self._note(error.message)
            self._stop.wait(self._poll_seconds)
        else:
            if self._trouble is not None:
                log.info("outbox relay works again")
                self._trouble = None

    def _note(self, trouble: str) -> None:
        """Log a trouble once, not every second."""
        if self._trouble is None:
            log.warning("outbox waits", reason=trouble)
        self._trouble = trouble


def _anything_waits(listener: psycopg.Connection[Any]) -> bool:
    row = listener.execute(WAITING).fetchone()
    return row is not None and bool(row[0])
