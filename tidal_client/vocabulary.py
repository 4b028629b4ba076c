"""The words that all parts of Tidal share: types and statuses of jobs, signals, gating modes, prefixes of ids, times.

Each is written here once; the database, the queue, the api, the command line and the client import them. Two copies are
independent on purpose: `migrations/`, because a migration never changes, and the checkers of the tests.
Leaves out: who may move a job from one status to another, which is `common.jobs.status`.
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
    """What kind of work a job is."""

    LM_TRAINING = "lm-training"
    RL_TRAINING = "rl-training"
    EVALUATION = "evaluation"
    ABLATION = "ablation"
    ANALYSIS = "analysis"
    DATASET = "dataset"


RESUMABLE: Final = frozenset({JobType.LM_TRAINING, JobType.RL_TRAINING})
"""Types that write training checkpoints: only these can be paused, completed early or resumed from."""


class ExperimentType(StrEnum):
    """What kind of thing a job made."""

    LM = "lm"
    RL = "rl"
    EVALUATION = "evaluation"
    ABLATION = "ablation"
    ANALYSIS = "analysis"
    DATASET = "dataset"


IMPORTED: Final = "imported"
"""The status of an experiment that no job of this installation made."""


class JobStatus(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    """Waits for a worker; nobody holds a lease."""
    PROVISIONING = "provisioning"
    """Claimed; the supervisor prepares the child."""
    STARTING = "starting"
    """The child runs: imports, data, compilation, loading a checkpoint."""
    RUNNING = "running"
    """At or past the first real step."""
    COMPLETING = "completing"
    """Training has ended; evaluation and final files are being written."""
    STOPPING = "stopping"
    """The wish `stop` is being carried out."""
    PAUSED = "paused"
    """A checkpoint is registered, the slot is free; waits for resume."""
    STALE = "stale"
    """The lease lapsed; the reaper judges it after the quarantine."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE: Final = frozenset(
    {JobStatus.PROVISIONING, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETING, JobStatus.STOPPING}
)
"""Somebody holds a lease and is expected to renew it."""
TERMINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
"""Never left again."""
LEASED: Final = ACTIVE | {JobStatus.STALE}
"""Counts against the concurrency limit of its type; lease columns are set."""
LIVE: Final = frozenset(JobStatus) - TERMINAL
"""Everything that may still change."""


class DesiredState(StrEnum):
    """What the user wants of a job, mildest first.

    A wish only becomes more severe, except pause, which may return to run.
    """

    RUN = "run"
    PAUSE = "pause"
    COMPLETE = "complete"
    STOP = "stop"


class Signal(StrEnum):
    """What the user can send."""

    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    STOP = "stop"


class GatingMode(StrEnum):
    """Who picks the modulation of each token: nobody, a constant, chance, or a policy."""

    NONE = "none"
    FIXED = "fixed"
    RANDOM = "random"
    LEARNED = "learned"


def _name_the_words(value: Any, known: ValidatorFunctionWrapHandler) -> Any:
    """An error about another word lists the words themselves, not the members of the enumeration."""
    try:
        return known(value)
    except ValidationError as error:
        words = re.sub(r"<\w+\.\w+: ('[^']*')>", r"\1", error.errors()[0]["msg"])
        raise PydanticCustomError("literal_error", words) from None


Gating = Annotated[
    Literal[GatingMode.NONE, GatingMode.FIXED, GatingMode.RANDOM, GatingMode.LEARNED], WrapValidator(_name_the_words)
]
"""Any mode; in the OpenAPI document its words stand where it is used."""
ChosenGating = Annotated[
    Literal[GatingMode.FIXED, GatingMode.RANDOM, GatingMode.LEARNED], WrapValidator(_name_the_words)
]
"""The modes that give every token a modulation; an analysis has one of these."""
NEUTRAL_MODULATION: Final = 0.5
"""Mode `fixed` with it is the baseline `neutral`."""

AnalysisKind = Literal["single", "batch", "sweep"]
"""What is computed of the modulations; `common.config.analysis` explains each."""
CheckpointKind = Literal["training", "model", "policy", "result", "other"]
"""What a registered file is: a resumable training checkpoint, or a final artifact."""
ReportPattern = Literal["experiment-overview", "rl-analysis", "trajectory-report", "full-report"]
"""What a report can be made from."""
DatasetFormat = Literal["txt", "jsonl", "parquet"]
"""How an uploaded text is written."""
WAITING_FOR_DISK: Final = "waiting_for_disk"
"""Phase of a trainer that waits because a disk has too little room; also the event that says so."""
DatasetStatus = Literal["uploaded", "tokenising", "ready", "failed"]
"""uploaded: its job waits, or there is none."""

JOB_ID: Final = "job_"
ANALYSIS_ID: Final = "ana_"
REPORT_ID: Final = "rep_"
READER_ID: Final = "gen_"
"""Prefix of the name under which an api process reads generations."""


def new_id(prefix: str) -> str:
    """The prefix and 16 lower-case base32 characters, 80 random bits."""
    return prefix + base64.b32encode(secrets.token_bytes(10)).decode().lower()


def utc_text(moment: datetime, timespec: Literal["auto", "milliseconds"] = "auto") -> str:
    """ISO 8601 in UTC with a Z, such as `2026-01-31T12:00:00.123456Z`; a naive time is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def parse_utc(text: str) -> datetime:
    """The time that an ISO 8601 text names, in UTC; one without a time zone is taken as UTC. ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
