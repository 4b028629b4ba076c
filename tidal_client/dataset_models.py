"""Replies about datasets. Leaves out: the calls (`datasets`)."""

from __future__ import annotations

from datetime import datetime

from .models import Failure, Job, Progress, Reply


class DatasetUse(Reply):
    """An experiment whose configuration names a dataset."""

    experiment_id: str
    name: str | None = None
    job_id: str
    type: str
    status: str
    created_at: datetime


class Dataset(Reply):
    """Text that was uploaded; `uses` only where one was asked for."""

    name: str
    status: str
    """uploaded, tokenising, ready or failed."""
    format: str
    text_field: str = "text"
    sha256: str
    size_bytes: int
    documents: int | None = None
    tokens: int | None = None
    validation_tokens: int | None = None
    job_id: str | None = None
    experiment_id: str | None = None
    progress: Progress | None = None
    error: Failure | None = None
    used_by: int = 0
    created_at: datetime
    uses: tuple[DatasetUse, ...] = ()


class DatasetList(Reply):
    """All datasets."""

    datasets: list[Dataset]


class DatasetUpload(Reply):
    """An upload that was taken."""

    dataset: Dataset
    job: Job | None = None
    """What tokenises it; None when its tokens are there already."""
