"""The methods of `TrainingHooks` that check the free disk space and write the archive of metrics.

The wait for free space is in `common.training.disk_wait`.
"""

from __future__ import annotations

from common.disk import DiskReserve, Shortage
from common.errors import DiskFullError, StorageError
from common.metrics import MetricsWriter

EXPERIMENTS, DATA = "experiments", "data"
"""The keys in `DiskReserve` of the experiment's folder and of the data folder."""


class DiskHooks:
    """Base class of hooks that archive metrics with `writer` and check the free space of the folders in `reserve`."""

    def __init__(self, reserve: DiskReserve | None, writer: MetricsWriter) -> None:
        self._reserve = reserve or DiskReserve({}, 0)
        self._writer = writer

    def disk_shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        """See `TrainingHooks.disk_shortage`. Also returns a shortage if metrics could not be written to a full disk."""
        disks = (EXPERIMENTS, DATA) if data else (EXPERIMENTS,)
        found = self._reserve.shortage(*disks, next_write_bytes=next_write_bytes)
        refusal = self._writer.refusal
        if found is not None or refusal is None:
            return found
        return self.disk_refused(refusal, next_write_bytes=next_write_bytes)

    def disk_refused(self, reason: str, *, data: bool = False, next_write_bytes: int = 0) -> Shortage:
        """See `TrainingHooks.disk_refused`. The shortage contains the free space at the time of the call."""
        return self._reserve.refused(DATA if data else EXPERIMENTS, reason, next_write_bytes=next_write_bytes)

    def flush_metrics(self) -> None:
        """Write all metrics so far to disk.

        Raises DiskFullError when the disk is full, StorageError for any other error. After either error, the metrics
        stay in memory.
        """
        if not self._writer.flush():
            kind = StorageError if self._writer.refusal is None else DiskFullError
            raise kind(
                "the metrics up to this checkpoint cannot be written to the experiment's folder; free some disk space"
            )
