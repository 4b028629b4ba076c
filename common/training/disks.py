"""The part of `TrainingHooks` that speaks of disks: free space, and an archive of metrics that finds no room.

Leaves out: what a training does about it (`common.training.disk_hold`).
"""

from __future__ import annotations

from common.disk import DiskReserve, Shortage
from common.errors import DiskFullError, StorageError
from common.metrics import MetricsWriter

EXPERIMENTS, DATA = "experiments", "data"


class DiskHooks:
    """Base of hooks with an archive of metrics, which `writer` writes; `reserve` knows the two folders."""

    def __init__(self, reserve: DiskReserve | None, writer: MetricsWriter) -> None:
        self._reserve = reserve or DiskReserve({}, 0)
        self._writer = writer

    def disk_shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        """As `TrainingHooks.disk_shortage`. Points of the archive that find no room are a shortage, too."""
        disks = (EXPERIMENTS, DATA) if data else (EXPERIMENTS,)
        found = self._reserve.shortage(*disks, next_write_bytes=next_write_bytes)
        refusal = self._writer.refusal
        if found is not None or refusal is None:
            return found
        return self.disk_refused(refusal, next_write_bytes=next_write_bytes)

    def disk_refused(self, reason: str, *, data: bool = False, next_write_bytes: int = 0) -> Shortage:
        """As `TrainingHooks.disk_refused`, with what is free now."""
        return self._reserve.refused(DATA if data else EXPERIMENTS, reason, next_write_bytes=next_write_bytes)

    def flush_metrics(self) -> None:
        """Write the metrics so far to the disk.

        Raises DiskFullError for want of room, StorageError for another reason; the metrics then wait in memory.
        """
        if not self._writer.flush():
            kind = StorageError if self._writer.refusal is None else DiskFullError
            raise kind("the metrics up to this checkpoint cannot be written; free some space")
