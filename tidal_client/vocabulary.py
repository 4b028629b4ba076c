"""The vocabulary that all parts of Tidal share: job types, statuses, signals, gating modes, id prefixes, time formats.

The database, the queue, the api, the command line and the client import these definitions. Only `migrations/` and some
tests have copies: a migration must never change, and these tests check the definitions independently. The allowed
transitions between job statuses are in `common.jobs.status`.
"""

from __future__ import annotations

import base64
import re
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError


class JobType(StrEnum):
    """The kind of work that a job does."""

    LM_TRAINING = "lm-training"
    RL_TRAINING = "rl-training"
    EVALUATION = "evaluation"
    HEADROOM = "headroom"
    ABLATION = "ablation"
    ANALYSIS = "analysis"
    DATASET = "dataset"


RESUMABLE: Final = frozenset({JobType.LM_TRAINING, JobType.RL_TRAINING})
"""Job types that write training checkpoints; only these can be paused, completed early or resumed."""


class CheckpointMode(StrEnum):
    """How a pretraining uses the checkpoint that it starts from."""

    AUTO = "auto"
    """Continue if the checkpoint's training has read the same text; otherwise fine-tune."""
    CONTINUE = "continue"
    """Take over the whole state: weights, optimiser, counters, and, for the same text, the position in it."""
    FINE_TUNE = "fine-tune"
    """Take over only the weights. Optimiser and counters begin anew, with the learning rate of a fine-tuning."""


class ExperimentType(StrEnum):
    """The type of an experiment, which follows from the type of the job that created it."""

    LM = "lm"
    RL = "rl"
    EVALUATION = "evaluation"
    HEADROOM = "headroom"
    ABLATION = "ablation"
    ANALYSIS = "analysis"
    DATASET = "dataset"


IMPORTED: Final = "imported"
"""The status of an experiment that was imported, so no job of this installation created it."""


class JobStatus(StrEnum):
    """The status of a job."""

    PENDING = "pending"
    """The job waits for a worker to claim it."""
    PROVISIONING = "provisioning"
    """A worker has claimed the job and prepares the child process."""
    STARTING = "starting"
    """The child process imports modules, loads data and a checkpoint, and compiles the model."""
    RUNNING = "running"
    """The child process has begun the first step of its work."""
    COMPLETING = "completing"
    """Training has ended; the child process evaluates the model and writes the final files."""
    STOPPING = "stopping"
    """The trainer carries out a stop request."""
    PAUSED = "paused"
    """A checkpoint is registered and the lease is released; the job waits for the signal resume."""
    STALE = "stale"
    """The lease has expired. After a further waiting time, the quarantine, the reaper requeues or ends the job."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE: Final = frozenset(
    {JobStatus.PROVISIONING, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETING, JobStatus.STOPPING}
)
"""Statuses in which a worker holds the lease and is expected to renew it."""
TERMINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
"""Statuses that are final: a job in one of them never changes its status again."""
LEASED: Final = ACTIVE | {JobStatus.STALE}
"""Statuses in which a job has a lease, even an expired one; these jobs count against the limit of their type."""
LIVE: Final = frozenset(JobStatus) - TERMINAL
"""Statuses of jobs that have not ended."""


class DesiredState(StrEnum):
    """The states that a user can request for a job, mildest first.

    The desired state of a job can only become more severe, except that pause may return to run.
    """

    RUN = "run"
    PAUSE = "pause"
    COMPLETE = "complete"
    STOP = "stop"


class Signal(StrEnum):
    """A request that the user can send to a job."""

    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    STOP = "stop"


class GatingMode(StrEnum):
    """How the modulation of each token is chosen: not at all, fixed, at random, or by a learned policy."""

    NONE = "none"
    FIXED = "fixed"
    RANDOM = "random"
    LEARNED = "learned"


def _list_allowed_values(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a gating mode. The error message lists the values, such as 'none', instead of enumeration members."""
    try:
        return validate(value)
    except ValidationError as error:
        message = re.sub(r"<\w+\.\w+: ('[^']*')>", r"\1", error.errors()[0]["msg"])
        raise PydanticCustomError("literal_error", message) from None


Gating = Annotated[
    Literal[GatingMode.NONE, GatingMode.FIXED, GatingMode.RANDOM, GatingMode.LEARNED],
    WrapValidator(_list_allowed_values),
]
"""Any gating mode. The OpenAPI document lists the values at every field of this type."""
ModulatedGating = Annotated[
    Literal[GatingMode.FIXED, GatingMode.RANDOM, GatingMode.LEARNED], WrapValidator(_list_allowed_values)
]
"""The gating modes that give every token a modulation; an analysis requires one of them."""
NEUTRAL_MODULATION: Final = 0.5
"""Modulation of the baseline `neutral`, which has the gating mode `fixed`."""


class TokenScope(StrEnum):
    """What a token allows. `INCLUDED_SCOPES` lists the scopes that each scope includes."""

    READ = "read"
    """Read jobs, experiments, datasets, reports and streams."""
    GENERATE = "generate"
    """Generate and analyse text, and use `/v1`."""
    SUBMIT = "submit"
    """Change jobs, experiments, datasets, reports and analyses; includes read."""
    ADMIN = "admin"
    """Everything, including the management of tokens."""


INCLUDED_SCOPES: Final = {
    TokenScope.READ: frozenset({TokenScope.READ}),
    TokenScope.GENERATE: frozenset({TokenScope.GENERATE}),
    TokenScope.SUBMIT: frozenset({TokenScope.READ, TokenScope.SUBMIT}),
    TokenScope.ADMIN: frozenset(TokenScope),
}
"""{scope of a token: all scopes that the token then has}."""

AnalysisKind = Literal["single", "batch", "sweep"]
"""What an analysis computes from the modulations; `common.config.analysis` explains each kind."""
CheckpointKind = Literal["training", "model", "policy", "result", "other"]
"""The kind of a registered file: a training checkpoint, from which a job can resume, or a final artifact."""
ReportPattern = Literal["experiment-overview", "rl-analysis", "trajectory-report", "full-report"]
"""Names of the report templates; the field of the api is `pattern`."""
DatasetFormat = Literal["txt", "jsonl", "parquet"]
"""The file format of an uploaded dataset."""
MEASURED: Final = "measured"
"""The event with which `common.training.pretrain` reports what a completed pretraining has needed
(`wire.prediction.TrainingMeasurement`)."""
WAITING_FOR_DISK: Final = "waiting_for_disk"
"""The phase of a trainer that waits for free disk space. The event that records the wait has the same name."""
DatasetStatus = Literal["uploaded", "tokenising", "ready", "failed"]
"""The status of a dataset. With `uploaded`, the job that tokenises it has not started yet, or there is no such job."""

JOB_ID: Final = "job_"
ANALYSIS_ID: Final = "ana_"
REPORT_ID: Final = "rep_"
TOKEN_ID: Final = "tok_"
"""Prefix of the id of a named token. The token itself, which is secret, begins with `tdl_`."""
READER_ID: Final = "gen_"
"""Prefix of a reader id, which identifies the api process that reads the events of a generation."""


def new_id(prefix: str) -> str:
    """Return a new id: the prefix and 16 lower-case base32 characters, which encode 80 random bits."""
    return prefix + base64.b32encode(secrets.token_bytes(10)).decode().lower()


def utc_text(moment: datetime, timespec: Literal["auto", "milliseconds"] = "auto") -> str:
    """Return a time as ISO 8601 in UTC, such as `2026-01-31T12:00:00.123456Z`. A naive time counts as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def parse_utc(text: str) -> datetime:
    """Parse an ISO 8601 time and return it in UTC. A text without a time zone is taken as UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
