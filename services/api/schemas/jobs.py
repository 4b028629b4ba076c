"""Requests about jobs. The replies are in `tidal_client.wire.job`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from common.jobs.submission import MAX_TAG, MAX_TAGS, MAX_TEXT
from services.api.schemas.base import Request
from tidal_client.vocabulary import JobType, Signal

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


class SignalRequest(Request):
    """A signal to a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"signal": "pause"}]})

    signal: Signal
    """pause: checkpoint and free the slot. resume. complete: end training now, evaluate, write the final model.
    stop: checkpoint and cancel."""
