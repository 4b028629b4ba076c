"""`/v1` on the wire: OpenAI's completions, snake_case, with the fields of Tidal beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.api.schemas.generate import MAX_PROMPT_CHARACTERS

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARACTERS)]
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_PROMPT_CHARACTERS)]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=200)]
MAX_PROMPTS = 16
MAX_CHOICES = 16


class StreamOptions(BaseModel):
    """What a stream says besides its text."""

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """A text to go on with. Keys that Tidal does not know are ignored, as clients send many."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True, protected_namespaces=())

    model: Name
    """The language model, by its id in `/v1/models`, or `<experiment id>/best`, `latest`, `final`."""
    prompt: Text | list[Text] | Tokens | list[Tokens] = ""
    """Text or token ids, or a list of either; an empty one starts from end-of-text."""
    max_tokens: int = Field(16, ge=1, le=4096)
    temperature: float = Field(1.0, ge=0, le=100)
    """0: the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: int | None = Field(None, ge=0, le=5)
    """Tell the log-probability of each token, and so many of the likeliest."""
    echo: bool = False
    """Put the prompt in front of the text."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    best_of: int | None = None
    """Only n: all choices are given back."""
    frequency_penalty: float | None = None
    """Only 0; see repetition_penalty."""
    presence_penalty: float | None = None
    """Only 0; see repetition_penalty."""
    logit_bias: dict[str, float] | None = None
    """Not to be had."""
    suffix: str | None = None
    """Not to be had."""

    top_k: int | None = Field(None, ge=1, le=1024)
    """null: the full distribution."""
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    """1: none."""
    gating_mode: Literal["none", "fixed", "random", "learned"] | None = None
    """null: fixed where a modulation is given, learned where a controller is, else none."""
    modulation: float | None = Field(None, ge=0, le=1)
    rl_checkpoint: Name | None = None
    """The controller, for gating_mode learned."""

    @model_validator(mode="after")
    def _only_what_can_be_done(self) -> Self:
        for name in ("frequency_penalty", "presence_penalty", "logit_bias", "suffix"):
            if getattr(self, name):
                raise ValueError(f"{name} is not supported")
        if self.best_of is not None and self.best_of != self.n:
            raise ValueError("best_of other than n is not supported")
        if (self.mode == "learned") != (self.rl_checkpoint is not None):
            raise ValueError("gating_mode learned and rl_checkpoint go together")
        if len(self.prompts) > MAX_PROMPTS:
            raise ValueError(f"prompt holds {len(self.prompts)} prompts, at most {MAX_PROMPTS} are answered at once")
        return self

    @property
    def mode(self) -> Literal["none", "fixed", "random", "learned"]:
        """The gating mode, made out where it is not given."""
        if self.gating_mode is not None:
            return self.gating_mode
        if self.rl_checkpoint is not None:
            return "learned"
        return "none" if self.modulation is None else "fixed"

    @property
    def prompts(self) -> list[str | list[int]]:
        """Every prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        found: list[str | list[int]] = []
        ids: list[int] = []
        for item in self.prompt:
            if isinstance(item, int):
                ids.append(item)
            else:
                found.append(item)
        return found or [ids]


class Logprobs(BaseModel):
    """Per token of a choice; `text_offset` counts characters from the start of its text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class Choice(BaseModel):
    """One text."""

    text: str
    index: int
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(BaseModel):
    """Tokens read and written; a prompt counts once, whatever n is."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """A reply, or one part of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class Model(BaseModel):
    """A checkpoint that text can be generated from."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tidal"


class ModelList(BaseModel):
    """Those of every experiment, the newest experiment first."""

    object: Literal["list"] = "list"
    data: list[Model]


def error_body(status: int, message: str, *, code: str | None, param: str | None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
