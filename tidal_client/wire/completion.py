"""Replies of `/v1`, in OpenAI's format with snake_case names, extended by fields of Tidal."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .vocabulary import VocabularyReply


class OpenAIReply(BaseModel):
    """A reply with snake_case names. Unknown keys are ignored, because an older client must understand a newer api."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="ignore")


class Logprobs(OpenAIReply):
    """The log-probabilities of the tokens of a choice; all lists have one item per token."""

    tokens: list[str]
    """The text of each token; a token that is not valid text, such as a part of a character, is written as
    `bytes:\\xe2\\x80`."""
    token_logprobs: list[float | None]
    """Log-probability of each token. Penalties and temperature are applied for generated tokens, but not for tokens of
    the prompt. null for a token without a predecessor."""
    top_logprobs: list[dict[str, float] | None] | None
    """For each token, the log-probabilities of the most likely tokens and of the token itself."""
    text_offset: list[int]
    """The position at which each token begins in the text of the choice, in characters."""


class Choice(OpenAIReply):
    """One generated text, or a part of it in a stream."""

    text: str
    index: int
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(OpenAIReply):
    """Numbers of prompt tokens and generated tokens; the tokens of a prompt count only once, even if n is greater than
    1."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(OpenAIReply):
    """A reply, or one part of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    """Identifies the model's file and the version of Tidal. If it changes, the same seed may generate another text."""
    choices: list[Choice]
    usage: Usage | None = None


class Model(OpenAIReply):
    """A checkpoint that text can be generated from."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tidal"
    vocabulary: VocabularyReply | None = None
    """The vocabulary that gives the meaning of token ids; null if the manifest of the checkpoint cannot be read."""
    chat_template: Literal["own", "default"] = "default"
    """What makes the prompt of a conversation: the model's own template, or the default of `/v1/chat/completions`."""


class ModelList(OpenAIReply):
    """The models of all experiments, newest experiment first."""

    object: Literal["list"] = "list"
    data: list[Model]
