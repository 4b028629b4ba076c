"""Converts chat requests to completion requests, and completions to chat replies.

The model's template, or the default, makes the prompt of the messages (`common.chat`). Everything after that is a
completion: `completions` prepares it and `completion_writer` builds its parts, which this module converts.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from common.errors import InvalidInputError
from services.api.context import Context
from services.api.operations.chat_template import chat_template
from services.api.operations.completions import find_reference
from services.api.schemas.chat import ChatRequest
from services.api.schemas.completions import CompletionRequest
from tidal_client.wire.chat import (
    ChatAlternative,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ChatTokenLogprob,
)
from tidal_client.wire.completion import Choice, Completion, Logprobs, Usage


def to_completion(context: Context, request: ChatRequest) -> CompletionRequest:
    """Return the completion request for a conversation.

    Raises NotFoundError for an unknown model, and InvalidInputError if the template refuses the messages or breaks a
    limit, or if a value is invalid.
    """
    reference = find_reference(context.store, request.model)
    template, stop = chat_template(context.store, reference)
    prompt = context.templates.render(template, [message.for_template() for message in request.messages])
    try:
        return request.completion(prompt, stop)
    except ValidationError as error:
        finding = error.errors()[0]
        location = ".".join(map(str, finding["loc"])) or "body"
        raise InvalidInputError.at(
            "messages" if location == "prompt" else location, str(finding["msg"]).removeprefix("Value error, ")
        ) from None


class ChatWriter:
    """Converts the parts of one completion to those of a chat completion."""

    def __init__(self, request: ChatRequest) -> None:
        self._alternatives = request.top_logprobs or 0
        self._begun: set[int] = set()

    def complete_reply(self, completion: Completion) -> ChatCompletion:
        """Return the whole reply."""
        usage = completion.usage or Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        return ChatCompletion(
            id=_chat_id(completion),
            created=completion.created,
            model=completion.model,
            system_fingerprint=completion.system_fingerprint,
            choices=[
                ChatChoice(
                    index=choice.index,
                    message=ChatMessage(content=choice.text),
                    logprobs=self._log_probs(choice.logprobs),
                    finish_reason=choice.finish_reason or "stop",
                )
                for choice in completion.choices
            ],
            usage=usage,
        )

    def chunk(self, part: Completion) -> ChatChunk:
        """Return a part of a stream. The first part of each choice names the role."""
        return ChatChunk(
            id=_chat_id(part),
            created=part.created,
            model=part.model,
            system_fingerprint=part.system_fingerprint,
            choices=[self._part(choice) for choice in part.choices],
            usage=part.usage,
        )

    def _part(self, choice: Choice) -> ChatChunkChoice:
        first = choice.index not in self._begun
        self._begun.add(choice.index)
        return ChatChunkChoice(
            index=choice.index,
            delta=ChatDelta(role="assistant" if first else None, content=choice.text if choice.text or first else None),
            logprobs=self._log_probs(choice.logprobs),
            finish_reason=choice.finish_reason,
        )

    def _log_probs(self, found: Logprobs | None) -> ChatLogprobs | None:
        if found is None:
            return None
        top = found.top_logprobs or [None] * len(found.tokens)
        return ChatLogprobs(
            content=[
                ChatTokenLogprob(
                    **_alternative(token, log_prob or 0.0).model_dump(),
                    top_logprobs=_likeliest(others or {}, self._alternatives),
                )
                for token, log_prob, others in zip(found.tokens, found.token_logprobs, top, strict=True)
            ]
        )


def _likeliest(others: dict[str, float], count: int) -> Sequence[ChatAlternative]:
    ordered = sorted(others.items(), key=lambda item: item[1], reverse=True)
    return [_alternative(token, log_prob) for token, log_prob in ordered[:count]]


def _alternative(token: str, log_prob: float) -> ChatAlternative:
    return ChatAlternative(token=token, logprob=log_prob, bytes=list(_token_bytes(token)))


def _token_bytes(token: str) -> bytes:
    """Return the bytes of a token; one that is no valid text is written as `bytes:\\xe2\\x80`."""
    if token.startswith("bytes:\\x"):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return token.encode()


def _chat_id(part: Completion) -> str:
    return f"chat{part.id}"
