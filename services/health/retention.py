"""The retention loop: deletes expired and leftover files once an hour, or earlier when a disk is nearly full.

Old logs and metrics are deleted only if TIDAL_RETENTION_DAYS is set (`delete_expired_archives`), old entries of the
audit log after TIDAL_AUDIT_DAYS. Leftovers of
killed processes (unfinished deletions, uploads, token caches and checkpoints) are deleted in either case. While the
free space of a disk is less than twice its reserve, rounds begin early; an early round deletes only files that the next
hourly round would delete as well. The loop has its own thread, because deleting may be slow and must not delay the
reaper. If the database or a disk is not available, the round is skipped.
"""

from __future__ import annotations

import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from common.artifacts import ArtifactStore
from common.audit import delete_old_entries
from common.config import Settings
from common.datasets import DatasetStore
from common.db import session_factory
from common.disk import MIB, DiskReserve, free_bytes
from common.errors import StorageError
from common.jobs.retention import delete_expired_archives
from common.logging import get_logger

ROUND_SECONDS = 3600.0
LEFTOVER_SECONDS = 3600.0
"""Minimum age in seconds of a leftover. No process works on an unfinished file or deletion for this long."""
CHECK_SECONDS = 10.0
"""Seconds between two checks of the free space."""
EARLY_SECONDS = 60.0
"""Seconds between two early rounds while a disk stays nearly full."""
EARLY_SHARE = 2
"""An early round begins when the free space is below this multiple of the disk reserve."""

log = get_logger(__name__)


class RetentionLoop:
    """Deletes expired and leftover files in rounds until `stop` is set."""

    def __init__(
        self, engine: Engine, settings: Settings, stop: threading.Event, *, check_seconds: float = CHECK_SECONDS
    ) -> None:
        self._engine = engine
        self._store = ArtifactStore(settings.experiments_dir)
        self._datasets = DatasetStore(settings.data_dir)
        self._days = settings.retention_days
        self._audit_days = settings.audit_days
        self._disks = DiskReserve(
            {"experiments": settings.experiments_dir, "data": settings.data_dir},
            EARLY_SHARE * settings.disk_reserve_mb * MIB,
        )
        self._stop = stop
        self._check_seconds = check_seconds

    def run(self) -> None:
        """Do rounds until `stop` is set, and wait between them."""
        begun_at: float | None = None
        early = False
        while not self._stop.is_set():
            now = time.monotonic()
            shortage = self._disks.shortage("experiments", "data")
            if shortage is not None and not early:
                log.warning("a disk is nearly full; deleting expired and leftover files now", shortage=str(shortage))
            early = shortage is not None
            if begun_at is None or now - begun_at >= (EARLY_SECONDS if early else ROUND_SECONDS):
                begun_at = now
                self.round(early=early)
            self._stop.wait(self._check_seconds)

    def round(self, *, early: bool = False) -> None:
        """Delete expired and leftover files, and log the number of bytes that became free."""
        try:
            before = free_bytes(self._store.root)
            leftovers = self._store.discard_leftovers(LEFTOVER_SECONDS)
            leftovers += self._store.discard_unfinished(LEFTOVER_SECONDS)
            leftovers += self._datasets.remove_abandoned() + self._datasets.remove_abandoned_caches()
            expired = delete_expired_archives(self._engine, self._store, self._days) if self._days > 0 else []
            entries = self._delete_old_entries()
            if leftovers or expired or entries:
                log.info(
                    "old data was removed",
                    early=early,
                    leftovers=leftovers,
                    archives=len(expired),
                    audit_entries=entries,
                    freed_bytes=max(0, free_bytes(self._store.root) - before),
                )
        except (SQLAlchemyError, StorageError, OSError) as error:
            log.warning("a retention round failed; the next one tries again", error=str(error))
        except Exception:
            log.exception("a retention round failed with an unexpected error")

    def _delete_old_entries(self) -> int:
        if not self._audit_days:
            return 0
        with session_factory(self._engine).begin() as session:
            return delete_old_entries(session, self._audit_days)
