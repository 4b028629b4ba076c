"""Experiments on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from common.jobs.submission import MAX_TAGS, MAX_TEXT
from services.api.schemas.base import Reply, Request, UtcTime
from services.api.schemas.jobs import JobError, JobProgress, Tag
from tidal_client.vocabulary import JobStatus


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
    status: JobStatus | Literal["imported"]
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


class ExperimentChange(Request):
    """What to set; what is left out stays."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)] | None = None
    tags: list[Tag] = Field([], max_length=MAX_TAGS)
    notes: Annotated[str, StringConstraints(max_length=20_000)] | None = None


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
    status: JobStatus | Literal["imported"]
    job_id: str | None = None
    attempt: int = 0
    progress: JobProgress | None = None
    error: JobError | None = None
    finished_at: UtcTime | None = None


class Point(Reply):
    """One value."""

    step: int
    value: float


class MetricPointReply(Reply):
    """One point as it was reported."""

    step: int
    time: str
    attempt: int
    values: dict[str, float | None]


class MetricsReply(Reply):
    """Metrics of an experiment."""

    experiment_id: str
    mode: Literal["recent", "historical"]
    keys: list[str]
    """Names in this reply."""
    available_keys: list[str]
    total_points: int
    """Points in the range before downsampling."""
    series: dict[str, list[Point]]
    """Per name at most `maxPoints` points, chosen by largest-triangle-three-buckets."""
    diverged: dict[str, int]
    """Names in this reply that hold values which are not finite (NaN or infinity), each with the first step at which
    it does: training diverged there. Such values are left out of `series` and null in `last`."""
    last: MetricPointReply | None = None
    """The newest point in the range, whole."""
    stream_cursor: str | None = None
    """Following the experiment's stream with `?since=` this misses no point; points already here may come again."""


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
