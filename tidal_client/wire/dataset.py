"""Datasets: text that was uploaded."""

from __future__ import annotations

from typing import Annotated

from ..vocabulary import DatasetFormat, DatasetStatus
from .base import KnownStatus, KnownType, Open, Reply, UtcTime
from .job import JobError, JobProgress, JobReply


class DatasetReply(Reply):
    """Text that was uploaded. `data.source: <name>` in a configuration trains on it, whatever its status: a training
    that finds no tokens makes them itself."""

    name: str
    status: Annotated[DatasetStatus, Open()]
    """uploaded: its job waits, or there is none. tokenising. ready. failed: `error` says why."""
    format: Annotated[DatasetFormat, Open()]
    text_field: str
    """Of .jsonl and .parquet."""
    sha256: str
    """Of the unpacked text."""
    size_bytes: int
    documents: int | None = None
    """Null: parquet that nobody has counted yet."""
    tokens: int | None = None
    """Training and validation together; null until ready."""
    validation_tokens: int | None = None
    """Of these, held out with the default `validation_fraction`."""
    job_id: str | None = None
    """The newest job that tokenises it."""
    experiment_id: str | None = None
    job_status: KnownStatus | None = None
    progress: JobProgress | None = None
    """Steps are documents."""
    error: JobError | None = None
    used_by: int = 0
    """Experiments that name it."""
    created_at: UtcTime


class DatasetUse(Reply):
    """An experiment whose configuration names the dataset."""

    experiment_id: str
    name: str | None = None
    job_id: str
    type: KnownType
    status: KnownStatus
    created_at: UtcTime


class DatasetDetail(DatasetReply):
    """One dataset, with who uses it."""

    uses: list[DatasetUse]
    """The newest 100."""


class DatasetList(Reply):
    """All datasets, newest first."""

    datasets: list[DatasetReply]


class DatasetUploaded(Reply):
    """An upload that was taken."""

    dataset: DatasetReply
    job: JobReply | None = None
    """The job that tokenises it; null when its tokens are there already."""
