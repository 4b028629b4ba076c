"""A request for text. The reply: `tidal_client.wire.generation`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from common.config.decoding_limits import (
    LEAST_REPETITION_PENALTY,
    MOST_REPETITION_PENALTY,
    Temperature,
)
from services.api.schemas.base import Request

MAX_PROMPT_CHARACTERS = 100_000
StopString = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class GenerateRequest(Request):
    """A text to go on with."""

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

    checkpoint: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
    """The language model: `<experiment id>/<file>`, or `<experiment id>/best`, `latest`, `final`."""
    prompt: str = Field("", max_length=MAX_PROMPT_CHARACTERS)
    """Its last context − 1 tokens are used; an empty one starts from end-of-text."""
    max_tokens: int = Field(50, ge=1, le=4096)
    temperature: Temperature = 0.8
    """0: the likeliest token each time; otherwise 0.001 or more."""
    top_k: int | None = Field(50, ge=1, le=1024)
    """null: the full distribution."""
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float = Field(1.2, ge=LEAST_REPETITION_PENALTY, le=MOST_REPETITION_PENALTY)
    seed: int | None = Field(None, ge=0, lt=2**63)
    """The same seed gives the same text."""
    gating_mode: Literal["none", "fixed", "random", "learned"] = "none"
    """none: temperature, topK, topP, repetitionPenalty as given; otherwise they follow the modulation."""
    modulation: float = Field(0.5, ge=0, le=1)
    """For gatingMode fixed."""
    rl_checkpoint: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)] | None = None
    """The controller, for gatingMode learned: `<experiment id>/<file>` or `<experiment id>/final`."""
    stop: list[StopString] = Field(default_factory=list, max_length=4)
    """The text ends before the first of these."""
    stream: bool = False
    """Answer with server-sent events: `token` for each token, then `done` with the whole reply, or `error`."""

    @model_validator(mode="after")
    def _policy_where_needed(self) -> Self:
        if self.gating_mode == "learned" and self.rl_checkpoint is None:
            raise ValueError("gatingMode learned needs rlCheckpoint")
        if self.gating_mode != "learned" and self.rl_checkpoint is not None:
            raise ValueError(f"rlCheckpoint is used with gatingMode learned only, not {self.gating_mode}")
        return self
