"""What the api answers, typed. Unknown keys are ignored, so an older client understands a newer api."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

TERMINAL_STATUSES = frozenset({"completed", "failed", "cancelled"})
"""A job in one of these never changes again."""


class Reply(BaseModel):
    """Base of all replies: camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Progress(Reply):
    """How far an attempt is. Steps are optimiser updates, for rl-training transitions."""

    step: int | None = None
    total_steps: int | None = None
    eta_seconds: float | None = None
    phase: str | None = None


class Failure(Reply):
    """Why a job failed."""

    code: str
    message: str | None = None


class Job(Reply):
    """One job."""

    id: str
    type: str
    status: str
    desired_state: str = "run"
    experiment_id: str
    name: str | None = None
    tags: list[str] = []
    priority: int = 0
    queue_position: int | None = None
    predicted_start: datetime | None = None
    not_before: datetime | None = None
    attempt: int = 0
    cancel_requested: bool = False
    worker: str | None = None
    parent_id: str | None = None
    checkpoint_ref: str | None = None
    checkpoint_step: int | None = None
    progress: Progress = Progress()
    error: Failure | None = None
    signals: list[str] = []
    what_next: str = ""
    """What happens next, in words. With `Client.job` and signals only, like the payload."""
    payload: dict[str, Any] | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in TERMINAL_STATUSES


class JobPage(Reply):
    """Jobs, newest first."""

    jobs: list[Job]
    next_cursor: str | None = None


class QueuedJob(Reply):
    """A job that waits."""

    id: str
    name: str | None = None
    priority: int = 0
    position: int
    predicted_start: datetime | None = None
    not_before: datetime | None = None
    created_at: datetime


class QueueType(Reply):
    """The line of one job type; no `limit`: as many jobs at once as there are workers."""

    type: str
    limit: int | None = None
    running: int = 0
    stale: int = 0
    pending: int = 0
    usual_seconds: float | None = None
    jobs: list[QueuedJob] = []


class QueueWorker(Reply):
    """A worker that has beaten lately."""

    worker: str
    host: str = ""
    device: str = ""
    state: str = ""
    job: str | None = None


class Queue(Reply):
    """One queue; `workers` is None while Redis does not answer."""

    queue: str
    workers: list[QueueWorker] | None = None
    types: list[QueueType] = []


class QueueList(Reply):
    """All queues of jobs."""

    queues: list[Queue]


class JobEvent(Reply):
    """One change of a job."""

    id: int
    attempt: int
    event: str
    actor: str
    from_status: str | None = None
    to_status: str | None = None
    details: dict[str, Any] = {}
    at: datetime


class JobEventPage(Reply):
    """Changes of a job, oldest first."""

    events: list[JobEvent]
    next_cursor: str | None = None


class LogLine(Reply):
    """One line a trainer printed."""

    attempt: int
    line: int
    text: str


class LogPage(Reply):
    """Log lines in order; `next_cursor` again later finds what was written since."""

    lines: list[LogLine]
    next_cursor: str | None = None
    complete: bool = True


class Experiment(Reply):
    """What a job made."""

    id: str
    type: str
    status: str
    name: str | None = None
    tags: list[str] = []
    imported: bool = False
    source_experiment_id: str | None = None
    job_id: str | None = None
    created_at: datetime


class ExperimentPage(Reply):
    """Experiments, newest first."""

    experiments: list[Experiment]
    next_cursor: str | None = None


class Checkpoint(Reply):
    """A file or checkpoint folder of an experiment."""

    name: str
    reference: str
    kind: str
    step: int | None = None
    size_bytes: int | None = None
    usable_as_base: bool = False
    usable_as_policy: bool = False


class Point(Reply):
    """One value of a metric."""

    step: int
    value: float


class Metrics(Reply):
    """Series by name."""

    series: dict[str, list[Point]]
    available_keys: list[str] = []
    total_points: int = 0
    diverged: dict[str, int] = {}
    """Names with values that are not finite, and the first step at which."""


class Generation(Reply):
    """A generated text and how it came about. `trajectory` has one entry per token."""

    text: str
    tokens_generated: int
    elapsed_ms: float
    finish_reason: str
    truncated: int = 0
    trajectory: list[dict[str, Any]] = []
    effective: dict[str, Any] = {}


class AnalysisResult(Reply):
    """An analysis of modulations, as the api computed it; the structures are described in docs/analysis.md."""

    kind: str
    request: dict[str, Any]
    trajectories: list[dict[str, Any]] = []
    batch_analysis: dict[str, Any] | None = None
    sweep_analysis: dict[str, Any] | None = None
    tokens_generated: int
    elapsed_ms: float


class Analysis(Reply):
    """A saved analysis; `result` with `Client.analysis` only."""

    id: str
    experiment_id: str
    job_id: str | None = None
    kind: str
    name: str | None = None
    request: dict[str, Any]
    result: AnalysisResult | None = None
    created_at: datetime


class AnalysisPage(Reply):
    """Saved analyses, newest first."""

    analyses: list[Analysis]
    next_cursor: str | None = None


class Report(Reply):
    """A report; `markdown` is None in lists."""

    id: str
    title: str
    markdown: str | None = None
    pattern: str | None = None
    experiment_ids: list[str] = []
    version: int
    created_at: datetime
    updated_at: datetime


class ReportPage(Reply):
    """Reports, newest first."""

    reports: list[Report]
    next_cursor: str | None = None


class ReportPattern(Reply):
    """What reports can be made from."""

    name: str
    about: str


class ReportPatterns(Reply):
    """All of them."""

    patterns: list[ReportPattern]
