"""The disk usage of the server."""

from __future__ import annotations

from .base import Reply, UtcTime


class StoredExperiment(Reply):
    """The size of one experiment on the disk."""

    id: str
    name: str | None = None
    size_bytes: int


class Storage(Reply):
    """The disk that contains the artifact store."""

    disk_bytes: int
    """Size of the disk in bytes."""
    free_bytes: int
    experiments_bytes: int
    """Total size of the files of all experiments in bytes, including the experiments of dataset jobs."""
    experiments: int
    """Number of experiments that have files, excluding the experiments of dataset jobs."""
    largest: list[StoredExperiment]
    """The ten largest experiments, largest first."""
    data_bytes: int
    """Total size of the corpora and the token cache in bytes."""
    retention_days: float
    """Days after which the logs and metrics of ended experiments are deleted; 0 means never."""
    measured_at: UtcTime
    """When the sizes were measured; they are measured at most once a minute."""
