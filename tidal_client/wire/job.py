"""A job, lists of jobs, what happened to one, its log, and what a submission would do."""

from __future__ import annotations

from typing import Any, Literal

from ..vocabulary import TERMINAL
from .base import KnownSignal, KnownStatus, KnownType, Reply, UtcTime


class JobProgress(Reply):
    """How far the present or last attempt is."""

    step: int | None = None
    """Finished optimiser updates; transitions for rl-training."""
    total_steps: int | None = None
    eta_seconds: float | None = None
    phase: str | None = None
    """What the trainer is doing: loading data, training, evaluation, … `waiting_for_disk` means that the trainer waits
    until a disk has room again; `whatNext` has the details."""


class JobError(Reply):
    """Why a job failed, or why its last attempt did."""

    code: str
    message: str | None = None


class JobReply(Reply):
    """One job."""

    id: str
    type: KnownType
    status: KnownStatus
    desired_state: str
    """What was last wished: run, pause, complete, stop."""
    cancel_requested: bool = False
    """Stopping came as cancel: the trainer is killed at the end of its grace."""
    experiment_id: str
    name: str | None = None
    tags: list[str]
    priority: int = 0
    gpus: int = 1
    queue: str
    queue_position: int | None = None
    """1 = next of its type to be claimed; only while pending."""
    predicted_start: UtcTime | None = None
    """When it will probably be claimed: from the remaining time of those that run, what the last jobs of each type
    took, limits, `notBefore` and the workers alive. Null: cannot be said."""
    attempt: int = 0
    """Executions so far."""
    infra_restarts: int = 0
    """Attempts lost to the infrastructure since the newest checkpoint."""
    user_failures: int = 0
    worker: str | None = None
    """Who runs it now."""
    status_before_stale: KnownStatus | None = None
    parent_id: str | None = None
    """The job this one resumes."""
    checkpoint_ref: str | None = None
    """Newest training checkpoint; the next attempt begins there."""
    checkpoint_step: int | None = None
    progress: JobProgress
    error: JobError | None = None
    signals: list[KnownSignal]
    """Signals that would change something now. A repeated wish (resume of a running job) is accepted but not listed."""
    not_before: UtcTime | None = None
    created_at: UtcTime
    updated_at: UtcTime
    started_at: UtcTime | None = None
    finished_at: UtcTime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in TERMINAL


class JobDetail(JobReply):
    """One job with what it was asked to do."""

    what_next: str = ""
    """What is happening and what Tidal does next, with deadlines: for people, in words that may change."""
    payload: dict[str, Any]
    """The complete, checked request: every default filled in. Names inside are those of the YAML files."""


class JobList(Reply):
    """A page of jobs, newest first."""

    jobs: list[JobReply]
    next_cursor: str | None = None


class JobPrediction(Reply):
    """What a submission would do (`?dryRun=true`)."""

    valid: Literal[True] = True
    type: KnownType
    experiment_type: str
    payload: dict[str, Any]
    would_wait: bool
    """The type's concurrency limit is reached, so it would wait in the queue."""
    queue_position: int
    """Place it would take, 1 = next."""


class JobEventReply(Reply):
    """One change of a job."""

    id: int
    attempt: int
    event: str
    actor: str
    from_status: str | None = None
    to_status: str | None = None
    details: dict[str, Any]
    at: UtcTime


class JobEventList(Reply):
    """Events in the order they happened."""

    events: list[JobEventReply]
    next_cursor: str | None = None


class LogLine(Reply):
    """One line a trainer printed."""

    attempt: int
    line: int
    """Number within the attempt, from 1."""
    text: str


class LogPage(Reply):
    """Log lines in order."""

    lines: list[LogLine]
    next_cursor: str | None
    """Where the next page begins; the same cursor again finds what was written since."""
    complete: bool
    """The end of what exists now was reached."""
