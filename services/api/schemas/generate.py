"""Generation requests. The reply is in `tidal_client.wire.generation`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from services.api.schemas.base import Request
from tidal_client.vocabulary import GatingMode
from tidal_client.wire.sampling import SamplingRequest

MAX_PROMPT_CHARACTERS = 100_000


class _Text(Request):
    """The model and the prompt of a generation."""

    checkpoint: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
    """The language model: `<experiment id>/<file>`, or `<experiment id>/best`, `latest`, `final`."""
    prompt: str = Field("", max_length=MAX_PROMPT_CHARACTERS)
    """The text to continue. If it is too long for the model's context window of n tokens, only its last n - 1 tokens
    are used. An empty prompt starts from the end-of-text token."""


class GenerateRequest(SamplingRequest, _Text):
    """A request to continue a text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "checkpoint": "20260131-120000-commit_ab12cd3-config_0123456789/final",
                    "prompt": "Once upon a time",
                    "maxTokens": 60,
                    "gatingMode": "fixed",
                    "modulation": 0.5,
                }
            ]
        }
    )

    rl_checkpoint: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)] | None = None
    """The controller, for gatingMode learned: `<experiment id>/<file>` or `<experiment id>/final`."""
    stream: bool = False
    """Whether to answer with server-sent events: `token` for each token, then `done` with the whole reply, or
    `error`."""

    @model_validator(mode="after")
    def _policy_where_needed(self) -> Self:
        if self.gating_mode is GatingMode.LEARNED and self.rl_checkpoint is None:
            raise ValueError("gatingMode learned needs rlCheckpoint")
        if self.gating_mode is not GatingMode.LEARNED and self.rl_checkpoint is not None:
            raise ValueError(f"rlCheckpoint is used only with gatingMode learned, not with {self.gating_mode}")
        return self
