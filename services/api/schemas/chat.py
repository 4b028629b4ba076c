"""Requests of `/v1/chat/completions`: OpenAI's chat completions, extended by fields of Tidal.

The replies are in `tidal_client.wire.chat`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from services.api.schemas.base import StrictRequest
from services.api.schemas.completions import (
    MAX_BIASES,
    MAX_CHOICES,
    CompletionRequest,
    Name,
    StreamOptions,
    Text,
    TokenId,
)
from tidal_client.vocabulary import Gating
from tidal_client.wire.sampling import MAX_NEW_TOKENS, Modulation, RepetitionPenalty, Temperature, TopK, TopP

MAX_MESSAGES = 512
DEFAULT_MAX_TOKENS = 256
"""Number of new tokens if the request names none."""
MOST_LOGPROBS = 5
Role = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
NewTokens = Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)]


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    type: Literal["text"]
    """Only texts are supported."""
    text: Text


class Message(BaseModel):
    """A message of the conversation."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    role: Role
    """system, user or assistant; a template of a model may know others."""
    content: Text | list[TextPart] = ""
    name: Annotated[str, StringConstraints(max_length=64)] | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _one_kind_of_content(cls, given: Any) -> Any:
        if given is None:
            return ""
        if not isinstance(given, str | list):
            raise ValueError("must be a string or a list of parts of type text")
        return given

    def for_template(self) -> dict[str, Any]:
        """Return the message as a template reads it; the parts of the content are joined."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        named = {"name": self.name} if self.name is not None else {}
        return {"role": self.role, "content": content, **named}


class ResponseFormat(BaseModel):
    """The format of the reply."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]


class ChatRequest(StrictRequest):
    """A request to answer in a conversation. A null value is handled like an omitted key; unknown keys are rejected."""

    model: Name
    """The language model, by its id in `/v1/models`, or `<experiment id>/best`, `latest`, `final`."""
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    """The conversation. The model's chat template makes the prompt of it."""
    max_tokens: NewTokens | None = None
    """Maximum number of new tokens per message; by default 256."""
    max_completion_tokens: NewTokens | None = None
    """OpenAI's newer name of `max_tokens`."""
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stop: str | list[str] | None = None
    """Strings before which a message ends."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    """How many of the most likely tokens to return at each position; needs `logprobs`."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] = Field({}, max_length=MAX_BIASES)
    response_format: ResponseFormat | None = None
    """Only `{"type": "text"}`."""
    user: str | None = None
    """Accepted for compatibility, like `metadata`, `store`, `safety_identifier` and `prompt_cache_key`; none has an
    effect."""
    metadata: dict[str, str] | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    top_k: TopK | None = None
    """Number of most likely tokens to sample from; null means all tokens."""
    repetition_penalty: RepetitionPenalty = 1.0
    gating_mode: Gating | None = None
    modulation: Modulation | None = None
    rl_checkpoint: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        return {k: value for k, value in given.items() if value is not None} if isinstance(given, dict) else given

    @field_validator("logit_bias", "metadata", mode="before")
    @classmethod
    def _not_too_many_entries(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MAX_BIASES:
            raise ValueError(f"has {len(given):,} entries; at most {MAX_BIASES:,} are accepted")
        return given

    @field_validator("messages", mode="before")
    @classmethod
    def _not_too_many_messages(cls, given: Any) -> Any:
        if isinstance(given, list) and len(given) > MAX_MESSAGES:
            raise ValueError(f"contains {len(given):,} messages; at most {MAX_MESSAGES} are accepted")
        return given

    @field_validator("max_completion_tokens", mode="after")
    @classmethod
    def _one_limit(cls, given: int | None, info: ValidationInfo) -> int | None:
        if given is not None and info.data.get("max_tokens") not in (None, given):
            raise ValueError("differs from max_tokens; give one of the two")
        return given

    @field_validator("top_logprobs", mode="after")
    @classmethod
    def _only_with_logprobs(cls, given: int | None, info: ValidationInfo) -> int | None:
        if given is not None and not info.data.get("logprobs"):
            raise ValueError("is allowed only with logprobs=true")
        return given

    def completion(self, prompt: str, stop: list[str]) -> CompletionRequest:
        """Return the request that continues `prompt`, with the stop strings of the request and, if there is room, those
        of the template.

        Raises ValidationError for values that completions refuse too.
        """
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        same = {name: getattr(self, name) for name in _SAME}
        return CompletionRequest.model_validate(
            {
                **same,
                "prompt": prompt,
                "max_tokens": self.max_tokens or self.max_completion_tokens or DEFAULT_MAX_TOKENS,
                "stop": [*given, *(text for text in stop if text not in given)][:4] if len(given) < 4 else given,
                "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
            }
        )


_SAME = (
    *("model", "temperature", "top_p", "n", "seed", "stream", "stream_options", "presence_penalty"),
    *("frequency_penalty", "logit_bias", "top_k", "repetition_penalty", "gating_mode", "modulation", "rl_checkpoint"),
)
"""Fields with the same name and meaning in completions."""
