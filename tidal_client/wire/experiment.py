"""Experiments: their status, configuration and results."""

from __future__ import annotations

from typing import Any, Literal

from .base import KnownStatus, Reply, UtcTime
from .job import JobError, JobProgress
from .vocabulary import VocabularyReply


class ExperimentReply(Reply):
    """An experiment, which contains the files, metrics and results of a job."""

    id: str
    type: str
    """One of lm, rl, evaluation, headroom, ablation, analysis, dataset."""
    name: str | None = None
    tags: list[str]
    notes: str | None = None
    imported: bool = False
    source_experiment_id: str | None = None
    """The experiment from whose checkpoint this experiment started."""
    source_checkpoint: str | None = None
    status: KnownStatus | Literal["imported"]
    """Status of the newest job of the experiment; `imported` if no job of this installation created it."""
    job_id: str | None = None
    progress: JobProgress | None = None
    created_at: UtcTime
    updated_at: UtcTime


class ExperimentDetail(ExperimentReply):
    """An experiment with the names of its metrics and results."""

    metric_names: list[str]
    rl_metric_names: list[str]
    results: list[str]
    """Names of the results that exist, among `evaluation`, `headroom`, `ablation`, `analysis`, `samples` and
    `sample-history`."""
    size_bytes: int
    """Size of all files of the experiment in bytes."""
    vocabulary: VocabularyReply | None = None
    """Vocabulary of the language model that the experiment trains; null as long as it is unknown, and for experiments
    that train no language model."""
    archive_deleted_at: UtcTime | None = None
    """When the logs and metrics were deleted because of the retention limit; null if they still exist."""


class ExperimentList(Reply):
    """A page of experiments, newest first."""

    experiments: list[ExperimentReply]
    next_cursor: str | None = None


class TagList(Reply):
    """All tags in use, in alphabetical order."""

    tags: list[str]


class ExperimentStatus(Reply):
    """The status of the newest job of an experiment."""

    experiment_id: str
    status: KnownStatus | Literal["imported"]
    job_id: str | None = None
    attempt: int = 0
    progress: JobProgress | None = None
    error: JobError | None = None
    finished_at: UtcTime | None = None


class ConfigReply(Reply):
    """The configuration of an experiment with all defaults filled in."""

    experiment_id: str
    config: dict[str, Any] | None = None
    """Configuration of the language model."""
    rl_config: dict[str, Any] | None = None
    """Configuration of the controller and its training."""


class ResultReply(Reply):
    """The unchanged content of a result file."""

    experiment_id: str
    result: dict[str, Any]


class Sample(Reply):
    """A completion that the trained model generated."""

    prompt: str
    generated: str


class SampleList(Reply):
    """The completions that the evaluation generated."""

    experiment_id: str
    samples: list[Sample]


class SampleRow(Reply):
    """The completions that were generated after one step of a training, one for each prompt."""

    step: int
    samples: list[Sample]


class SampleHistory(Reply):
    """Completions of the same prompts after different steps, generated with the same seeds."""

    experiment_id: str
    rows: list[SampleRow]
    """In the order of the steps."""
    total: int
    """Number of all stored rows. If it is larger than the number of `rows`, these are evenly spread over all rows,
    from the first to the newest."""
