"""The events of a generation: the engine writes them, the api forwards them, and the client reads them.

The types are dictionaries with the keys of the JSON, because the api forwards tokens without parsing them, and an
object per token would slow the engine down. An optional event `prompt` comes first, then one event `token` per token,
and last `done` or `error`. `common.redis.generation_events` encodes the events for Redis.
"""

from __future__ import annotations

import json
from typing import Any, Final, NotRequired, TypedDict, cast

EVENT_TOKEN: Final = "token"
EVENT_PROMPT: Final = "prompt"
EVENT_DONE: Final = "done"
EVENT_ERROR: Final = "error"
LAST_EVENTS: Final = (EVENT_DONE, EVENT_ERROR)


class Alternative(TypedDict):
    """One of the most likely tokens at a position."""

    id: int
    text: str
    logProb: float


class TokenEvent(TypedDict):
    """One token with the modulation and decoding parameters with which it was sampled. Entropies are in nats."""

    index: int
    id: int
    text: str
    """The text that became complete with this token.

    It is empty while the completion ends within a character or might end with the beginning of a stop string.
    """
    modulation: float | None
    temperature: float
    topK: int | None
    topP: float
    repetitionPenalty: float
    logProb: float
    entropy: float
    samplingEntropy: float
    token: NotRequired[str]
    """Present with logProbs: the text of this token alone."""
    start: NotRequired[int]
    """Present with logProbs: the number of characters of the text before this token."""
    alternatives: NotRequired[list[Alternative]]
    """Present with topLogProbs: the most likely tokens at this position, most likely first."""
    choice: NotRequired[int]
    """Present with n > 1: the index of the choice."""


class PromptToken(TypedDict):
    """One token of the prompt; `logProb` is None for the first token that the model has read."""

    id: int
    token: str
    start: int
    logProb: float | None
    alternatives: list[Alternative]


class PromptEvent(TypedDict):
    """The prompt as the model has read it. The event is sent if the request asks for echo."""

    text: str
    tokens: NotRequired[list[PromptToken]]
    """Present with logProbs: the tokens of the prompt."""


class GeneratedChoice(TypedDict):
    """One complete choice (one of the `n` completions of a request)."""

    text: str
    tokensGenerated: int
    promptTokens: int
    elapsedMs: float
    finishReason: str
    truncated: int
    trajectory: NotRequired[list[TokenEvent]]
    """Absent if the request did not ask for it."""
    effective: dict[str, Any]


class DoneEvent(GeneratedChoice):
    """The last event of a successful generation. With n > 1, the fields describe choice 0, without its trajectory."""

    choices: NotRequired[list[GeneratedChoice]]
    """Present with n > 1: all choices."""


class ErrorEvent(TypedDict):
    """The last event of a failed generation. `code` is the error code and `status` is the HTTP status."""

    code: str
    message: str
    status: int
    tokensGenerated: NotRequired[int]
    """Present after a cancellation: the number of tokens that were generated before it."""
    seed: NotRequired[int | None]


GenerationEvent = TokenEvent | PromptEvent | DoneEvent | ErrorEvent


def read_token(data: str) -> TokenEvent:
    """Parse the data of an event `token`."""
    return cast(TokenEvent, json.loads(data))


def read_prompt(data: str) -> PromptEvent:
    """Parse the data of an event `prompt`."""
    return cast(PromptEvent, json.loads(data))


def read_done(data: str) -> DoneEvent:
    """Parse the data of an event `done`."""
    return cast(DoneEvent, json.loads(data))


def read_error(data: str) -> ErrorEvent:
    """Parse the data of an event `error`."""
    return cast(ErrorEvent, json.loads(data))


def choices_of(done: DoneEvent) -> list[GeneratedChoice]:
    """Return all choices of a generation; the list has one element if `n` is 1."""
    return done.get("choices") or [done]
