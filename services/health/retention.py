"""The retention loop: `common.jobs.retention.retain` once an hour, where TIDAL_RETENTION_DAYS asks for it.

In a thread of its own, because deleting may be slow and the reaper is punctual. A database or a disk that is away costs
a round.
"""

from __future__ import annotations

import threading

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from common.artifacts import ArtifactStore
from common.errors import StorageError
from common.jobs.retention import retain
from common.logging import get_logger

ROUND_SECONDS = 3600.0
LEFTOVER_SECONDS = 3600.0
"""What was renamed out of sight so long ago is no deletion at work any more."""

log = get_logger(__name__)


class Retention:
    """Runs until `stop` is set."""

    def __init__(self, engine: Engine, store: ArtifactStore, days: float, stop: threading.Event) -> None:
        self._engine = engine
        self._store = store
        self._days = days
        self._stop = stop

    def run(self) -> None:
        """Look, wait; at once with `days` 0: everything is kept."""
        while self._days > 0 and not self._stop.is_set():
            try:
                self._store.discard_leftovers(LEFTOVER_SECONDS)
                retain(self._engine, self._store, self._days)
            except (SQLAlchemyError, StorageError, OSError) as error:
                log.warning("retention waits for its next round", error=str(error))
            except Exception:
                log.exception("retention stumbled")
            self._stop.wait(ROUND_SECONDS)
