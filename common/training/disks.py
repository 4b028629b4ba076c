"""The disks of a training as its surroundings see them: free space, and an archive of metrics that finds no room.

Leaves out: what a training does about it (`common.training.disk_hold`).
"""

from __future__ import annotations

from common.disk import DiskReserve, Shortage
from common.errors import DiskFullError, StorageError
from common.metrics import MetricsWriter

EXPERIMENTS, DATA = "experiments", "data"


class Disks:
    """`reserve` knows the folders by these names; `writer` is the one that archives the metrics."""

    def __init__(self, reserve: DiskReserve | None, writer: MetricsWriter) -> None:
        self._reserve = reserve or DiskReserve({}, 0)
        self._writer = writer

    def shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        """As `TrainingHooks.disk_shortage`; points of the archive that find no room are one, too."""
        disks = (EXPERIMENTS, DATA) if data else (EXPERIMENTS,)
        found = self._reserve.shortage(*disks, next_write_bytes=next_write_bytes)
        refusal = self._writer.refusal
        if found is not None or refusal is None:
            return found
        return self.refused(refusal, next_write_bytes=next_write_bytes)

    def refused(self, reason: str, *, data: bool = False, next_write_bytes: int = 0) -> Shortage:
        """As `TrainingHooks.disk_refused`."""
        return self._reserve.refused(DATA if data else EXPERIMENTS, reason, next_write_bytes=next_write_bytes)

    def flush_metrics(self) -> None:
        """The metrics so far on the disk. StorageError, DiskFullError for want of room: they wait in memory then."""
        if not self._writer.flush():
            kind = StorageError if self._writer.refusal is None else DiskFullError
            raise kind("the metrics up to this checkpoint cannot be written; free some space")
