"""An experiment, which is what a job made: itself, its status, configuration and results."""

from __future__ import annotations

from typing import Any, Literal

from .base import KnownStatus, Reply, UtcTime
from .job import JobError, JobProgress


class ExperimentReply(Reply):
    """One experiment: what a job made."""

    id: str
    type: str
    """lm, rl, evaluation, ablation, analysis or dataset."""
    name: str | None = None
    tags: list[str]
    notes: str | None = None
    imported: bool = False
    source_experiment_id: str | None = None
    """Whose checkpoint it began from."""
    source_checkpoint: str | None = None
    status: KnownStatus | Literal["imported"]
    """Of its newest job."""
    job_id: str | None = None
    progress: JobProgress | None = None
    created_at: UtcTime
    updated_at: UtcTime


class ExperimentDetail(ExperimentReply):
    """One experiment with what there is to see of it."""

    metric_names: list[str]
    rl_metric_names: list[str]
    results: list[str]
    """Which of `evaluation`, `ablation`, `analysis`, `samples` exist."""
    size_bytes: int
    """Of all its files."""
    archive_deleted_at: UtcTime | None = None
    """When retention deleted its logs and metrics."""


class ExperimentList(Reply):
    """A page of experiments, newest first."""

    experiments: list[ExperimentReply]
    next_cursor: str | None = None


class TagList(Reply):
    """Every tag that is in use, in the order of their letters."""

    tags: list[str]


class ExperimentStatus(Reply):
    """Where its newest job stands."""

    experiment_id: str
    status: KnownStatus | Literal["imported"]
    job_id: str | None = None
    attempt: int = 0
    progress: JobProgress | None = None
    error: JobError | None = None
    finished_at: UtcTime | None = None


class ConfigReply(Reply):
    """The configuration of an experiment, every default filled in."""

    experiment_id: str
    config: dict[str, Any] | None = None
    """Of the language model."""
    rl_config: dict[str, Any] | None = None
    """Of the controller."""


class ResultReply(Reply):
    """A result file as it was written."""

    experiment_id: str
    result: dict[str, Any]


class Sample(Reply):
    """A text the trained model wrote."""

    prompt: str
    generated: str


class SampleList(Reply):
    """Texts of the evaluation."""

    experiment_id: str
    samples: list[Sample]
