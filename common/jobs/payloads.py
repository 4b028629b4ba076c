"""What a job of each type is asked to do: one frozen pydantic model per type, checked at submission.

A payload is stored complete (`payload.model_dump(mode="json")`), every default filled in, so that a later change of a
default does not change a job that waits. Whether a checkpoint or a corpus exists is the business of the api, which
knows the store; here only the form of a reference is checked. No torch, no database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from common.config import AnalysisConfig, DataConfig, EvaluationConfig, LMConfig, RLConfig, build
from common.redis.keys import TRAINING_QUEUE
from tidal_client.vocabulary import ExperimentType, JobType

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


def normal_reference(text: str) -> str:
    """`experiments/<id>/<file>` or `<id>/<file>` as `<id>/<file>`; ValueError for anything else.

    Absolute paths, `..`, backslashes and empty parts are refused: a reference never leaves the store.
    """
    reference = text.strip().removeprefix("experiments/")
    if not _REFERENCE.fullmatch(reference):
        raise ValueError(
            f"checkpoint {text!r} is no reference into the store; "
            "write <experiment id>/<file>, or <experiment id>/best, latest or final"
        )
    return reference


Reference = Annotated[str, AfterValidator(normal_reference)]


class JobPayload(BaseModel):
    """Common base: frozen, an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LmTrainingPayload(JobPayload):
    """Pretrain a language model."""

    config: LMConfig
    initial_checkpoint: Reference | None = None
    """Training state or weights to begin with; None: from scratch."""


class RlTrainingPayload(JobPayload):
    """Train the controller against a finished language model, then ablate."""

    config: RLConfig
    checkpoint: Reference
    """The language model it steers."""
    data: DataConfig
    """Prompts and statistics come from here; normally the corpus of the language model."""
    initial_checkpoint: Reference | None = None
    """Training state of an earlier controller training to go on from."""


class EvaluationPayload(JobPayload):
    """Perplexity and samples of a checkpoint."""

    checkpoint: Reference
    data: DataConfig
    evaluation: EvaluationConfig


class AblationPayload(JobPayload):
    """Compare policies on unseen prompts."""

    checkpoint: Reference
    rl_checkpoint: Reference
    config: RLConfig
    data: DataConfig


class AnalysisPayload(JobPayload):
    """What a controller, or a fixed or random choice, does with the modulation."""

    checkpoint: Reference
    rl_checkpoint: Reference | None = None
    """For gating mode learned."""
    analysis: AnalysisConfig

    @model_validator(mode="after")
    def _policy_where_needed(self) -> Self:
        if self.analysis.uses_policy and self.rl_checkpoint is None:
            raise ValueError("gating mode learned needs rl_checkpoint; or choose gating mode random or fixed")
        if not self.analysis.uses_policy and self.rl_checkpoint is not None:
            raise ValueError("rl_checkpoint is used with gating mode learned only, and by no sweep")
        return self


class DatasetPayload(JobPayload):
    """Tokenise a corpus, so that trainings find it ready."""

    data: DataConfig
    sha256: str | None = None
    """Of the uploaded dataset that `data` names, so that the job is about this content and no later one."""


PAYLOADS: Final[dict[JobType, type[JobPayload]]] = {
    JobType.LM_TRAINING: LmTrainingPayload,
    JobType.RL_TRAINING: RlTrainingPayload,
    JobType.EVALUATION: EvaluationPayload,
    JobType.ABLATION: AblationPayload,
    JobType.ANALYSIS: AnalysisPayload,
    JobType.DATASET: DatasetPayload,
}


def experiment_type(payload: JobPayload) -> ExperimentType:
    """Return the type of the experiment that a job with this payload creates."""
    types = {
        LmTrainingPayload: ExperimentType.LM,
        RlTrainingPayload: ExperimentType.RL,
        EvaluationPayload: ExperimentType.EVALUATION,
        AblationPayload: ExperimentType.ABLATION,
        AnalysisPayload: ExperimentType.ANALYSIS,
        DatasetPayload: ExperimentType.DATASET,
    }
    return types[type(payload)]


def source_checkpoint(payload: JobPayload) -> str | None:
    """The checkpoint an experiment builds on, `<experiment id>/<file>`; of an ablation the language
    model, of an analysis the controller where it has one."""
    if isinstance(payload, LmTrainingPayload):
        return payload.initial_checkpoint
    if isinstance(payload, RlTrainingPayload | EvaluationPayload | AblationPayload):
        return payload.checkpoint
    if isinstance(payload, AnalysisPayload):
        return payload.rl_checkpoint or payload.checkpoint
    return None


QUEUES: Final[dict[JobType, str]] = dict.fromkeys(JobType, TRAINING_QUEUE)
"""The queue whose workers take a type."""


def check_payload(job_type: JobType, payload: Mapping[str, Any] | JobPayload) -> JobPayload:
    """Validate and complete the payload of a `job_type`. Raises ConfigError that lists all errors.

    An instance of the model of this type is returned unchanged, because its constructor has validated it.
    """
    model = PAYLOADS[job_type]
    return payload if isinstance(payload, model) else build(model, dict(payload), where=job_type.value)
