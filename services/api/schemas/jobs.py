"""Jobs on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from common.jobs.submission import MAX_TAG, MAX_TAGS, MAX_TEXT
from services.api.schemas.base import Reply, Request, UtcTime
from tidal_client.vocabulary import JobStatus, JobType, Signal

Tag = Annotated[str, StringConstraints(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{MAX_TAG - 1}}}$")]
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class JobRequest(Request):
    """A job to run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "lm-training",
                    "configPath": "base_config.yaml",
                    "config": {"training": {"max_steps": 200}, "data": {"source": "builtin:stories"}},
                    "name": "first try",
                    "tags": ["demo"],
                }
            ]
        }
    )

    type: JobType
    config_path: ShortText | None = None
    """A file in the configuration folder, e.g. `base_config.yaml`. For lm-training without it the shipped defaults."""
    rl_config_path: ShortText | None = None
    """The same for the controller (rl-training, ablation)."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Values laid over the file, nested as in the file: of the language model for lm-training, of the controller for
    rl-training and ablation, of the section `evaluation` for evaluation. For analysis: prompts, kind,
    samples_per_prompt, max_tokens, gating_mode, modulation, seed, bootstrap, include_extreme_values."""
    data: dict[str, Any] = Field(default_factory=dict)
    """For the other types: values laid over the `data` section inherited from the language model's experiment. For
    dataset: what to tokenise."""
    checkpoint: ShortText | None = None
    """The language model: `<experiment id>/<file>`, or `<experiment id>/best`, `latest`, `final`. Needed by all types
    but dataset and lm-training, where it is what training begins with."""
    rl_checkpoint: ShortText | None = None
    """The controller to compare (ablation), or to analyse (analysis)."""
    resume_from: ShortText | None = None
    """What a new job goes on from, with the configuration of the job that made it: the id of a job that has ended (its
    newest checkpoint), or one checkpoint of an ended job, `<experiment id>/checkpoints/<name>`."""
    priority: int = Field(0, ge=-100, le=100)
    """Higher runs first."""
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)] | None = None
    tags: list[Tag] = Field([], max_length=MAX_TAGS)
    not_before: AwareDatetime | None = None
    """Earliest start; with a time zone."""
    gpus: Literal[1] = 1
    """GPU slots; 1 is what a job can have."""
    queue: bool = True
    """False: 409 instead of waiting when the type's concurrency limit is reached."""


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
    type: JobType
    status: JobStatus
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
    status_before_stale: JobStatus | None = None
    parent_id: str | None = None
    """The job this one resumes."""
    checkpoint_ref: str | None = None
    """Newest training checkpoint; the next attempt begins there."""
    checkpoint_step: int | None = None
    progress: JobProgress
    error: JobError | None = None
    signals: list[Signal]
    """Signals that would change something now. A repeated wish (resume of a running job) is accepted but not listed."""
    not_before: UtcTime | None = None
    created_at: UtcTime
    updated_at: UtcTime
    started_at: UtcTime | None = None
    finished_at: UtcTime | None = None


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
    type: JobType
    experiment_type: str
    payload: dict[str, Any]
    would_wait: bool
    """The type's concurrency limit is reached, so it would wait in the queue."""
    queue_position: int
    """Place it would take, 1 = next."""


class SignalRequest(Request):
    """A wish for a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"signal": "pause"}]})

    signal: Signal
    """pause: checkpoint and free the slot. resume. complete: end training now, evaluate, write the final model.
    stop: checkpoint and cancel."""


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
