"""The retention loop: what may be deleted is, once an hour, and at once when a disk is about to be full.

Old logs and metrics go where TIDAL_RETENTION_DAYS asks for it (`common.jobs.retention.retain`); what processes that
were killed left behind (deletions, uploads, token caches and checkpoints that were never whole) always does. Below
twice the reserve a round begins early; it deletes nothing that it would not have deleted within the hour.

In a thread of its own, because deleting may be slow and the reaper is punctual. A database or a disk that is away costs
a round.
"""

from __future__ import annotations

import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from common.artifacts import ArtifactStore
from common.config import Settings
from common.datasets import DatasetStore
from common.disk import MIB, DiskReserve, free_bytes
from common.errors import StorageError
from common.jobs.retention import retain
from common.logging import get_logger

ROUND_SECONDS = 3600.0
LEFTOVER_SECONDS = 3600.0
"""What was renamed out of sight, or begun, so long ago is no work of a living process any more."""
LOOK_SECONDS = 10.0
"""Between two looks at the disks."""
EARLY_SECONDS = 60.0
"""Between two early rounds while a disk stays nearly full."""
EARLY_SHARE = 2
"""An early round begins below so many times the reserve."""

log = get_logger(__name__)


class Retention:
    """Runs until `stop` is set."""

    def __init__(
        self, engine: Engine, settings: Settings, stop: threading.Event, *, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._engine = engine
        self._store = ArtifactStore(settings.experiments_dir)
        self._datasets = DatasetStore(settings.data_dir)
        self._days = settings.retention_days
        self._disks = DiskReserve(
            {"experiments": settings.experiments_dir, "data": settings.data_dir},
            EARLY_SHARE * settings.disk_reserve_mb * MIB,
        )
        self._stop = stop
        self._look_seconds = look_seconds

    def run(self) -> None:
        """Tidy, wait."""
        begun_at: float | None = None
        early = False
        while not self._stop.is_set():
            now = time.monotonic()
            shortage = self._disks.shortage("experiments", "data")
            if shortage is not None and not early:
                log.warning("a disk is nearly full; what retention allows is deleted at once", shortage=str(shortage))
            early = shortage is not None
            if begun_at is None or now - begun_at >= (EARLY_SECONDS if early else ROUND_SECONDS):
                begun_at = now
                self.round(early=early)
            self._stop.wait(self._look_seconds)

    def round(self, *, early: bool = False) -> None:
        """Delete what may be deleted, and say how much it freed."""
        try:
            before = free_bytes(self._store.root)
            leftovers = self._store.discard_leftovers(LEFTOVER_SECONDS)
            leftovers += self._store.discard_unfinished(LEFTOVER_SECONDS)
            leftovers += self._datasets.sweep() + self._datasets.sweep_caches()
            expired = retain(self._engine, self._store, self._days) if self._days > 0 else []
            if leftovers or expired:
                log.info(
                    "tidied up",
                    early=early,
                    leftovers=leftovers,
                    archives=len(expired),
                    freed_bytes=max(0, free_bytes(self._store.root) - before),
                )
        except (SQLAlchemyError, StorageError, OSError) as error:
            log.warning("retention waits for its next round", error=str(error))
        except Exception:
            log.exception("retention stumbled")
