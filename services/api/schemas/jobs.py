"""Requests about jobs. The replies are in `tidal_client.wire.job`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from common.jobs.submission import MAX_TAG, MAX_TAGS, MAX_TEXT
from services.api.schemas.base import Request
from tidal_client.vocabulary import CheckpointMode, JobType, Signal

Tag = Annotated[str, StringConstraints(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{MAX_TAG - 1}}}$")]
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class JobRequest(Request):
    """A job to submit."""

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
    """A file in the configuration folder, e.g. `base_config.yaml`. If it is omitted, lm-training uses the default
    values."""
    rl_config_path: ShortText | None = None
    """A file in the configuration folder with the configuration of the controller, for rl-training, headroom
    and ablation."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Values that override values of the file, nested as in the file. They belong to the language model's configuration
    for lm-training, to the controller's configuration for rl-training, headroom and ablation, and to the section
    `evaluation` for evaluation. For analysis, they are: prompts, kind, samples_per_prompt, max_tokens, gating_mode,
    modulation, seed, bootstrap, include_extreme_values."""
    data: dict[str, Any] = Field(default_factory=dict)
    """For dataset, the corpus to tokenise. For rl-training, evaluation, headroom and ablation, values that override the
    `data` section in the configuration of the language model's experiment."""
    checkpoint: ShortText | None = None
    """The language model: `<experiment id>/<file>`, or `<experiment id>/best`, `latest`, `final`. Required for all
    types except dataset and lm-training. If it is given for lm-training, the training starts from it, and the shape of
    the model is that of the checkpoint unless `config` sets it."""
    checkpoint_mode: CheckpointMode = CheckpointMode.AUTO
    """For lm-training with a checkpoint. `fine-tune`: only the weights are taken over; optimiser and counters begin
    anew, and the learning rate peaks at `training.fine_tuning_learning_rate`. `continue`: the whole training state is
    taken over. `auto`: continue if the checkpoint's training has read the same text, otherwise fine-tune."""
    rl_checkpoint: ShortText | None = None
    """For ablation, the controller to compare; for analysis, the controller to analyse."""
    resume_from: ShortText | None = None
    """The training that the job continues, with the same configuration. It is either the id of an ended job, whose
    newest checkpoint is then used, or one checkpoint of an ended job: `<experiment id>/checkpoints/<name>`."""
    priority: int = Field(0, ge=-100, le=100)
    """Jobs with a higher priority run first."""
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)] | None = None
    tags: list[Tag] = Field([], max_length=MAX_TAGS)
    not_before: AwareDatetime | None = None
    """The job does not start before this time, which must have a time zone."""
    gpus: Literal[1] = 1
    """Number of GPUs; only 1 is supported."""
    queue: bool = True
    """Whether the job may wait in the queue. If false, the reply is 409 when the concurrency limit of the job type is
    reached."""


class SignalRequest(Request):
    """A signal to send to a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"signal": "pause"}]})

    signal: Signal
    """pause: write a checkpoint and free the worker. resume: continue a paused job. complete: end the training now,
    evaluate, and write the final model. stop: write a checkpoint, then cancel the job."""
