"""What lies on the disk of the server."""

from __future__ import annotations

from .base import Reply, UtcTime


class StoredExperiment(Reply):
    """How much one experiment takes."""

    id: str
    name: str | None = None
    size_bytes: int


class Storage(Reply):
    """The disk of the artifact store."""

    disk_bytes: int
    """Size of the disk."""
    free_bytes: int
    experiments_bytes: int
    """Of all files of all experiments, with those of dataset jobs."""
    experiments: int
    """Experiments with files, without those of dataset jobs."""
    largest: list[StoredExperiment]
    """The ten that take most, the largest first."""
    data_bytes: int
    """Of corpora and the token cache."""
    retention_days: float
    """After so many days health deletes logs and metrics of what has ended; 0: never."""
    measured_at: UtcTime
    """Sizes are measured at most once a minute."""
