"""Writes to the row of an owned job in a separate thread, in the order in which the writes were submitted.

Each write is repeated until it is committed. An outage of the database therefore delays the writes, but none is lost.
After the loss of the lease, all remaining writes fail. Every write is a function of `common.jobs.queue`. These
functions may be repeated; this is necessary, because the reply to a commit may be lost. The lease is renewed elsewhere
(`services.worker.lease_keeper`), because a renewal must not wait for other writes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, cast

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from common.backoff import Backoff
from common.db import database_unavailable
from common.errors import LeaseLostError, UnavailableError
from common.logging import get_logger

log = get_logger(__name__)
T = TypeVar("T")

_FIRST_RETRY_SECONDS = 0.2
_LAST_RETRY_SECONDS = 5.0
"""Longest delay in seconds between two attempts of a write."""


class RowWriter:
    """Executes writes in one thread. `lost` is set when a write finds that another attempt owns the job."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._writes: queue.SimpleQueue[tuple[Callable[[Session], object], Future[object]] | None] = queue.SimpleQueue()
        self._abandoned = threading.Event()
        self._given_up = False
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="row-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Callable[[Session], T]) -> Future[T]:
        """Queue `write`. It runs in its own transaction, after all writes that were submitted before it."""
        future: Future[object] = Future()
        self._writes.put((write, future))
        return cast("Future[T]", future)

    def close(self, *, abandon: bool = False) -> None:
        """Wait until the submitted writes are finished.

        With `abandon`, drop the remaining writes as soon as the database does not answer.
        """
        if abandon:
            self._abandoned.set()
        self._writes.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._writes.get()) is not None:
            write, future = item
            try:
                future.set_result(self._commit(write))
            except LeaseLostError as error:
                self.lost.set()
                future.set_exception(error)
            except Exception as error:
                if not (self._given_up or database_unavailable(error)):
                    log.exception("a write to the job's row failed")
                future.set_exception(error)

    def _commit(self, write: Callable[[Session], object]) -> object:
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        while True:
            if self.lost.is_set():
                raise LeaseLostError("the lease was lost before this write")
            if self._given_up:
                raise UnavailableError("the database does not answer, and the worker does not wait any longer")
            try:
                with self._sessions.begin() as session:
                    return write(session)
            except SQLAlchemyError as error:
                if not database_unavailable(error):
                    raise
                if backoff.failures == 0:
                    message = "the database does not answer; the write is repeated until it succeeds"
                    log.warning(message, error=str(error).splitlines()[0])
                if self._abandoned.wait(backoff.next()):
                    self._given_up = True  # The remaining writes would fail in the same way.
                    raise
