"""Jobs: their state, lists, events and logs, and the predicted result of a submission."""

from __future__ import annotations

from typing import Any, Literal

from ..vocabulary import TERMINAL
from .base import KnownSignal, KnownStatus, KnownType, Reply, UtcTime
from .prediction import TrainingMeasurement, TrainingPrediction


class JobProgress(Reply):
    """Progress of the current or last attempt."""

    step: int | None = None
    """Number of finished optimiser updates. For rl-training, number of transitions (environment steps)."""
    total_steps: int | None = None
    eta_seconds: float | None = None
    phase: str | None = None
    """What the trainer is doing: loading data, training, evaluation, … In the phase `waiting_for_disk`, the trainer
    waits for free disk space; `whatNext` has the details."""


class JobError(Reply):
    """Why a job, or its last attempt, failed."""

    code: str
    message: str | None = None


class JobReply(Reply):
    """A job without its payload."""

    id: str
    type: KnownType
    status: KnownStatus
    desired_state: str
    """The state that the user requested last: run, pause, complete or stop."""
    cancel_requested: bool = False
    """Whether the job was cancelled; if its trainer still runs when the grace period ends, the trainer is killed."""
    experiment_id: str
    name: str | None = None
    tags: list[str]
    priority: int = 0
    gpus: int = 1
    queue: str
    queue_position: int | None = None
    """Position among the waiting jobs of its type; 1 is claimed next. Null if the job is not pending."""
    predicted_start: UtcTime | None = None
    """Estimated time at which a worker will claim the job. It follows from the remaining time of running jobs, the
    durations of the last jobs of each type, the limits, `notBefore` and the number of workers. Null if no estimate is
    possible."""
    attempt: int = 0
    """Number of attempts so far."""
    infra_restarts: int = 0
    """Number of attempts that ended because of the infrastructure, counted since the newest checkpoint."""
    user_failures: int = 0
    worker: str | None = None
    """The worker that runs the job now."""
    status_before_stale: KnownStatus | None = None
    parent_id: str | None = None
    """The earlier job that this job continues."""
    checkpoint_ref: str | None = None
    """The newest training checkpoint, from which the next attempt resumes."""
    checkpoint_step: int | None = None
    progress: JobProgress
    error: JobError | None = None
    signals: list[KnownSignal]
    """The signals that would have an effect now. Signals without effect, such as resume for a running job, are accepted
    but not listed."""
    not_before: UtcTime | None = None
    created_at: UtcTime
    updated_at: UtcTime
    started_at: UtcTime | None = None
    finished_at: UtcTime | None = None

    @property
    def ended(self) -> bool:
        """Return whether the job has ended."""
        return self.status in TERMINAL


class JobDetail(JobReply):
    """A job with its payload and a text about what happens next."""

    what_next: str = ""
    """What happens now and what Tidal does next, with deadlines. Written for people; the wording may change."""
    payload: dict[str, Any]
    """The complete, validated request with all defaults filled in. Its keys are those of the YAML files."""
    prediction: TrainingPrediction | None = None
    """Parameters, memory and duration that were predicted at submission; null for other types than lm-training."""
    measurement: TrainingMeasurement | None = None
    """What a completed lm-training job has needed; null before its end."""


class JobList(Reply):
    """A page of jobs, newest job first."""

    jobs: list[JobReply]
    next_cursor: str | None = None


class JobPrediction(Reply):
    """What the submission of a job would do (`?dryRun=true`)."""

    valid: Literal[True] = True
    type: KnownType
    experiment_type: str
    payload: dict[str, Any]
    would_wait: bool
    """Whether the job would have to wait because the concurrency limit of its type is reached."""
    queue_position: int
    """Position that the job would have among the waiting jobs of its type; 1 is claimed next."""
    training: TrainingPrediction | None = None
    """Parameters, memory and duration of the training; null for other types than lm-training."""


class JobEventReply(Reply):
    """A recorded change of a job."""

    id: int
    attempt: int
    event: str
    actor: str
    from_status: str | None = None
    to_status: str | None = None
    details: dict[str, Any]
    at: UtcTime


class JobEventList(Reply):
    """A page of events, oldest first."""

    events: list[JobEventReply]
    next_cursor: str | None = None


class LogLine(Reply):
    """One line of a job's output."""

    attempt: int
    line: int
    """Number of the line within the attempt, from 1."""
    text: str


class LogPage(Reply):
    """A page of log lines, oldest first."""

    lines: list[LogLine]
    next_cursor: str | None
    """Cursor of the next page. At the end of the log, a later request with the same cursor returns the lines written
    since."""
    complete: bool
    """Whether this page reaches the present end of the log."""
