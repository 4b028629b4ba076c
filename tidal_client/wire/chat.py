"""Replies of `/v1/chat/completions`, in OpenAI's format."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from .completion import OpenAIReply, Usage


class ChatAlternative(OpenAIReply):
    """A token with its log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    """The UTF-8 bytes of the token."""


class ChatTokenLogprob(ChatAlternative):
    """A generated token with the most likely tokens at its position."""

    top_logprobs: list[ChatAlternative]


class ChatLogprobs(OpenAIReply):
    """The log-probabilities of the tokens of a message."""

    content: list[ChatTokenLogprob]
    refusal: None = None


class ChatMessage(OpenAIReply):
    """A generated message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatDelta(OpenAIReply):
    """A part of a message in a stream."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the part does not change."""
        return {name: value for name, value in dump(self).items() if value is not None}


class ChatChoice(OpenAIReply):
    """One generated message."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatChunkChoice(OpenAIReply):
    """A part of one generated message."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletion(OpenAIReply):
    """A reply with one message per choice."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatChunk(OpenAIReply):
    """One part of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
