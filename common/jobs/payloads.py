"""The payloads of jobs: one frozen pydantic model per job type, validated at submission.

A payload is stored with all defaults filled in (`payload.model_dump(mode="json")`), so that a later change of a default
does not affect jobs that already wait. Only the form of a reference is checked here; the api, which can access the
store, checks whether a checkpoint or a corpus exists. This module uses neither torch nor the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from common.config import AnalysisConfig, DataConfig, EvaluationConfig, LMConfig, RLConfig, build
from common.redis.keys import TRAINING_QUEUE
from tidal_client.vocabulary import CheckpointMode, ExperimentType, JobType

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


def normal_reference(text: str) -> str:
    """Return the reference `experiments/<id>/<file>` or `<id>/<file>` as `<id>/<file>`.

    Raises ValueError for anything else, such as absolute paths, `..`, backslashes and empty parts, so that a reference
    cannot point outside the store.
    """
    reference = text.strip().removeprefix("experiments/")
    if not _REFERENCE.fullmatch(reference):
        raise ValueError(
            f"checkpoint {text!r} is not a reference into the store; "
            "write <experiment id>/<file>, or <experiment id>/best, latest or final"
        )
    return reference


Reference = Annotated[str, AfterValidator(normal_reference)]


class JobPayload(BaseModel):
    """The base of all payloads. Instances are frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    experiment_type: ClassVar[ExperimentType]
    """The type of the experiment that a job with this payload creates."""

    @property
    def source_checkpoint(self) -> str | None:
        """The checkpoint that the experiment builds on (field `checkpoint`), as `<experiment id>/<file>`, or None."""
        return getattr(self, "checkpoint", None)

    @property
    def corpus(self) -> DataConfig | None:
        """The corpus that the job reads: the field `data`, or None."""
        return getattr(self, "data", None)


class LmTrainingPayload(JobPayload):
    """Pretrain a language model."""

    experiment_type = ExperimentType.LM

    config: LMConfig
    initial_checkpoint: Reference | None = None
    """Checkpoint from which training starts: a training state, or only weights; None to train from scratch."""
    checkpoint_mode: CheckpointMode = CheckpointMode.AUTO
    """Whether training continues the initial checkpoint or fine-tunes its weights."""

    @property
    def source_checkpoint(self) -> str | None:
        """The checkpoint from which training starts, or None."""
        return self.initial_checkpoint

    @property
    def corpus(self) -> DataConfig:
        """The corpus that the model is trained on."""
        return self.config.data


class RlTrainingPayload(JobPayload):
    """Train the controller for a finished language model, then run the ablation."""

    experiment_type = ExperimentType.RL

    config: RLConfig
    checkpoint: Reference
    """The language model that the controller steers."""
    data: DataConfig
    """Corpus for the prompts and token statistics; usually the corpus of the language model."""
    initial_checkpoint: Reference | None = None
    """Training state of an earlier controller training to resume from."""


class EvaluationPayload(JobPayload):
    """Compute the perplexity of a checkpoint, and generate samples with it."""

    experiment_type = ExperimentType.EVALUATION

    checkpoint: Reference
    data: DataConfig
    evaluation: EvaluationConfig


class HeadroomPayload(JobPayload):
    """Measure how much a policy could gain over the best constant modulation, before any controller is trained."""

    experiment_type = ExperimentType.HEADROOM

    checkpoint: Reference
    config: RLConfig
    data: DataConfig


class AblationPayload(JobPayload):
    """Compare the learned policy with constant and random modulation on unseen prompts."""

    experiment_type = ExperimentType.ABLATION

    checkpoint: Reference
    rl_checkpoint: Reference
    config: RLConfig
    data: DataConfig


class AnalysisPayload(JobPayload):
    """Analyse how a learned, fixed or random policy sets the modulation."""

    experiment_type = ExperimentType.ANALYSIS

    checkpoint: Reference
    rl_checkpoint: Reference | None = None
    """The controller; required in gating mode learned without a sweep over modulation values, and not allowed
    otherwise."""
    analysis: AnalysisConfig

    @property
    def source_checkpoint(self) -> str:
        """The controller, or the language model if the job has no controller."""
        return self.rl_checkpoint or self.checkpoint

    @model_validator(mode="after")
    def _policy_where_needed(self) -> Self:
        if self.analysis.uses_policy and self.rl_checkpoint is None:
            raise ValueError("gating mode learned needs rl_checkpoint; or choose gating mode random or fixed")
        if not self.analysis.uses_policy and self.rl_checkpoint is not None:
            raise ValueError(
                "rl_checkpoint is used only in gating mode learned without a sweep over modulation values; leave it out"
            )
        return self


class DatasetPayload(JobPayload):
    """Tokenise a corpus in advance, so that training jobs need not wait for it."""

    experiment_type = ExperimentType.DATASET

    data: DataConfig
    sha256: str | None = None
    """SHA-256 of the uploaded dataset that `data` names; the job fails if the dataset has been replaced since."""


PAYLOADS: Final[dict[JobType, type[JobPayload]]] = {
    JobType.LM_TRAINING: LmTrainingPayload,
    JobType.RL_TRAINING: RlTrainingPayload,
    JobType.EVALUATION: EvaluationPayload,
    JobType.HEADROOM: HeadroomPayload,
    JobType.ABLATION: AblationPayload,
    JobType.ANALYSIS: AnalysisPayload,
    JobType.DATASET: DatasetPayload,
}


QUEUES: Final[dict[JobType, str]] = dict.fromkeys(JobType, TRAINING_QUEUE)
"""{job type: name of the queue that its jobs wait in}."""


def check_payload(job_type: JobType, payload: Mapping[str, Any] | JobPayload) -> JobPayload:
    """Validate the payload of a `job_type` and fill in its defaults.

    Raises a ConfigError that lists all errors. A payload that is already an instance of this type's model is returned
    unchanged, because its constructor has validated it.
    """
    model = PAYLOADS[job_type]
    return payload if isinstance(payload, model) else build(model, dict(payload), where=job_type.value)
