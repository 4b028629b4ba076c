"""Requests and errors of `/v1`: OpenAI's completions with snake_case names, extended by fields of Tidal.

The replies are in `tidal_client.wire.completion`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from services.api.schemas.base import StrictRequest
from services.api.schemas.generate import MAX_PROMPT_CHARACTERS
from tidal_client.vocabulary import Gating, GatingMode
from tidal_client.wire.sampling import (
    MAX_NEW_TOKENS,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    Modulation,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARACTERS)]
TokenId = Annotated[int, Field(ge=0)]
Tokens = Annotated[list[TokenId], Field(max_length=MAX_PROMPT_CHARACTERS)]
MAX_PROMPTS = 64
MAX_CHOICES = 64
MAX_TEXTS = 256
"""Maximum number of texts of one request: number of prompts times number of choices."""
MAX_TOKENS = 65_536
"""Maximum number of tokens of one request: number of texts times max_tokens."""
MAX_BIASES = 1024
_PROMPTS = "must be a string, a list of strings, a list of token ids, or a list of lists of token ids"


class StreamOptions(BaseModel):
    """Options of a streamed reply."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """Accepted for compatibility; has no effect."""


class CompletionRequest(StrictRequest):
    """A request to continue texts. A null value is handled like an omitted key; unknown keys are rejected."""

    model: Name
    """The language model, by its id in `/v1/models`, or `<experiment id>/best`, `latest`, `final`."""
    prompt: Text | list[Text] | Tokens | list[Tokens] = ""
    """A text, a list of texts, a list of token ids, or a list of lists of token ids. An empty prompt starts from the
    end-of-text token."""
    max_tokens: int = Field(16, ge=0, le=MAX_NEW_TOKENS)
    """Maximum number of new tokens per text. With 0, no text is generated; `echo` with `logprobs` then returns the
    log-probabilities of the prompt."""
    temperature: Temperature = 1.0
    """Sampling temperature. 0 always selects the most likely token; any other value must be at least 0.001."""
    top_p: TopP = 1.0
    n: int = Field(1, ge=1, le=MAX_CHOICES, validate_default=True)
    """Number of texts per prompt. The number of texts of all prompts, multiplied by max_tokens, may be at most
    65,536."""
    stop: str | list[str] | None = None
    """Strings before which a text ends. The reply does not contain them."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """Choice i of prompt j is sampled with the seed `seed + j · n + i`; i and j begin at 0."""
    logprobs: int | None = Field(None, ge=0, le=5)
    """How many of the most likely tokens to return at each position, with their log-probabilities. The log-probability
    of the token itself is always returned."""
    echo: bool = False
    """Whether the text begins with the prompt; `logprobs` then also covers the tokens of the prompt."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    """Only allowed with `stream`."""
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    """Number of texts to generate per prompt. The n texts with the highest log-probability per token are returned. A
    number greater than n is not allowed with `stream`."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted from the logits of tokens that the text already contains."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted from the logit of a token as often as the text already contains the token."""
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] = Field({}, max_length=MAX_BIASES)
    """Maps token ids to values that are added to the logits of these tokens."""
    suffix: str | None = None
    """Not supported, because the models generate from left to right."""
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
    """Penalty on tokens that the prompt or the text already contains; 1 means no penalty."""
    gating_mode: Gating | None = None
    """null means learned if rl_checkpoint is given, otherwise fixed if modulation is given, otherwise none."""
    modulation: Modulation | None = None
    rl_checkpoint: Name | None = Field(None, validate_default=True)
    """The controller, for gating_mode learned."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        return {k: value for k, value in given.items() if value is not None} if isinstance(given, dict) else given

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_kind_of_prompt(cls, given: Any) -> Any:
        several = isinstance(given, list) and bool(given) and not _are_token_ids(given)
        if several and not (all(isinstance(prompt, str) for prompt in given) or all(map(_are_token_ids, given))):
            raise ValueError(_PROMPTS)
        if several and len(given) > MAX_PROMPTS:
            raise ValueError(f"contains {len(given)} prompts; at most {MAX_PROMPTS} are accepted in one request")
        if not isinstance(given, str | list):
            raise ValueError(_PROMPTS)
        for prompt in given if several else [given]:
            _check_prompt(prompt)
        return given

    @field_validator("stop", mode="before")
    @classmethod
    def _up_to_four_strings(cls, given: Any) -> Any:
        strings = given if isinstance(given, list) else [given]
        if len(strings) > MAX_STOP_STRINGS or not all(map(_is_stop_string, strings)):
            raise ValueError(
                f"must be one string or up to {MAX_STOP_STRINGS} strings, each of 1 to {MAX_STOP_CHARACTERS} characters"
            )
        return given

    @field_validator("logit_bias", "metadata", mode="before")
    @classmethod
    def _not_too_many_entries(cls, given: Any) -> Any:
        # Check the number of entries before the entries, because thousands of validation errors take seconds to format.
        if isinstance(given, dict) and len(given) > MAX_BIASES:
            raise ValueError(f"has {len(given):,} entries; at most {MAX_BIASES:,} are accepted")
        return given

    @field_validator("n", "best_of", mode="after")
    @classmethod
    def _not_too_many_texts(cls, given: int | None, info: ValidationInfo) -> int | None:
        prompts = _as_list(info.data.get("prompt", ""))
        if given is not None and given * len(prompts) > MAX_TEXTS:
            raise ValueError(
                f"is {given} for {len(prompts)} prompts; at most {MAX_TEXTS} texts are generated for one request"
            )
        tokens = (given or 1) * len(prompts) * int(info.data.get("max_tokens", 0))
        if tokens > MAX_TOKENS:
            raise ValueError(
                f"is {given} for {len(prompts)} prompts: together the texts may have {tokens:,} tokens, but at most "
                f"{MAX_TOKENS:,} are generated for one request; request fewer texts or fewer max_tokens"
            )
        return given

    @field_validator("suffix", mode="after")
    @classmethod
    def _no_suffix(cls, given: str | None) -> str | None:
        if given:
            raise ValueError("is not supported, because the models generate from left to right; leave it out")
        return given

    @field_validator("best_of", mode="after")
    @classmethod
    def _best_of_some(cls, given: int | None, info: ValidationInfo) -> int | None:
        n = info.data.get("n", 1)
        if given is not None and given < n:
            raise ValueError(f"is {given}, below n, which is {n}")
        if given is not None and given > n and info.data.get("stream"):
            raise ValueError("must not be above n with stream=true, because the best texts are known only at the end")
        return given

    @field_validator("stream_options", mode="after")
    @classmethod
    def _only_of_a_stream(cls, given: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if given is not None and not info.data.get("stream"):
            raise ValueError("is allowed only with stream=true; leave it out")
        return given

    @field_validator("rl_checkpoint", mode="after")
    @classmethod
    def _controller_where_needed(cls, given: str | None, info: ValidationInfo) -> str | None:
        mode = info.data.get("gating_mode")
        if given is None and mode is GatingMode.LEARNED:
            raise ValueError("is missing: gating_mode learned needs a controller")
        if given is not None and mode not in (None, GatingMode.LEARNED):
            raise ValueError(f"is allowed only with gating_mode learned, but gating_mode is {mode}")
        return given

    @property
    def mode(self) -> GatingMode:
        """Return the gating mode; if it is not given, derive it from the controller and the modulation."""
        if self.gating_mode is not None:
            return self.gating_mode
        if self.rl_checkpoint is not None:
            return GatingMode.LEARNED
        return GatingMode.NONE if self.modulation is None else GatingMode.FIXED

    @property
    def texts_per_prompt(self) -> int:
        """Return the number of texts to generate for each prompt."""
        return self.n if self.best_of is None else self.best_of

    @property
    def prompts(self) -> list[str | list[int]]:
        """Return the prompts as a list."""
        return _as_list(self.prompt)


class ErrorDetail(BaseModel):
    """Description of an error in OpenAI's format."""

    message: str
    type: str
    param: str | None
    """The invalid field of the request; null if the error is not about a single field."""
    code: str | None
    """Code of the error, for programs. It stays the same across versions."""


class ErrorReply(BaseModel):
    """The body of every error under `/v1`."""

    error: ErrorDetail


def _as_list(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    found: list[str | list[int]] = []
    ids: list[int] = []
    for item in prompt:
        if isinstance(item, int):
            ids.append(item)
        else:
            found.append(item)
    return found or [ids]


def _is_stop_string(given: Any) -> bool:
    return isinstance(given, str) and 0 < len(given) <= MAX_STOP_CHARACTERS


def _are_token_ids(given: Any) -> bool:
    return isinstance(given, list) and all(type(item) is int for item in given)


def _check_prompt(prompt: str | list[int]) -> None:
    """Raise ValueError for an invalid prompt.

    Without this check, Pydantic would report one error for each type that a prompt may have.
    """
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        unit = "characters" if isinstance(prompt, str) else "token ids"
        raise ValueError(f"has {len(prompt):,} {unit}; at most {MAX_PROMPT_CHARACTERS:,} are accepted")
    if isinstance(prompt, list) and (invalid := next((token for token in prompt if token < 0), None)) is not None:
        raise ValueError(f"contains the token id {invalid}; token ids must be at least 0")


def error_body(status: int, message: str, *, code: str | None, param: str | None) -> dict[str, Any]:
    """Return the body of an error in OpenAI's format."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorReply(error=ErrorDetail(message=message, type=kind, param=param, code=code)).model_dump()
