"""Datasets: uploaded corpora."""

from __future__ import annotations

from typing import Annotated

from ..vocabulary import DatasetFormat, DatasetStatus
from .base import KnownStatus, KnownType, OpenEnum, Reply, UtcTime
from .job import JobError, JobProgress, JobReply


class DatasetReply(Reply):
    """An uploaded dataset.

    A configuration with `data.source: <name>` trains on it, whatever its status: a training job tokenises the dataset
    if that has not been done yet.
    """

    name: str
    status: Annotated[DatasetStatus, OpenEnum()]
    """With `uploaded`, no job tokenises the dataset at present. With `tokenising`, a job does so. With `ready`, the
    tokens exist. With `failed`, `error` contains the reason."""
    format: Annotated[DatasetFormat, OpenEnum()]
    text_field: str
    """For jsonl and parquet: name of the field or column that contains the text."""
    sha256: str
    """SHA-256 of the text, after decompression if the upload was compressed."""
    size_bytes: int
    documents: int | None = None
    """Number of documents; null for a parquet file whose documents have not been counted yet."""
    tokens: int | None = None
    """Number of training and validation tokens together; null if the status is not ready."""
    validation_tokens: int | None = None
    """Number of tokens held out for validation with the default `validation_fraction`; included in `tokens`."""
    job_id: str | None = None
    """The newest job for tokenising the dataset."""
    experiment_id: str | None = None
    job_status: KnownStatus | None = None
    progress: JobProgress | None = None
    """Progress of the job `jobId`; one step is one document."""
    error: JobError | None = None
    used_by: int = 0
    """Number of experiments that use the dataset."""
    created_at: UtcTime


class DatasetUse(Reply):
    """An experiment whose configuration uses the dataset."""

    experiment_id: str
    name: str | None = None
    job_id: str
    type: KnownType
    status: KnownStatus
    created_at: UtcTime


class DatasetDetail(DatasetReply):
    """A dataset with the experiments that use it."""

    uses: list[DatasetUse]
    """The newest 100 experiments that use the dataset."""


class DatasetList(Reply):
    """All datasets, newest first."""

    datasets: list[DatasetReply]


class DatasetUploaded(Reply):
    """The reply to an accepted upload."""

    dataset: DatasetReply
    job: JobReply | None = None
    """The job that tokenises the dataset; null if the tokens already exist, or if too many jobs wait."""
