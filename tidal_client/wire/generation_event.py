"""The events of a generation, as the engine writes them, the api passes them on and the client reads them.

Typed dictionaries with the keys of the wire, because tokens pass through the api unopened and a class for each would
cost the engine time. `token` comes once per token, `prompt` before all others where it is wanted, and last comes `done`
or `error`. Leaves out: how they travel (`common.redis.generation_events`).
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
    """One of the likeliest tokens at a place."""

    id: int
    text: str
    logProb: float


class TokenEvent(TypedDict):
    """One written token: the modulation and the four decoding parameters it was sampled with, nats."""

    index: int
    id: int
    text: str
    """Empty where the token ends inside a character or in what may be a stop string."""
    modulation: float | None
    temperature: float
    topK: int | None
    topP: float
    repetitionPenalty: float
    logProb: float
    entropy: float
    samplingEntropy: float
    token: NotRequired[str]
    """With logProbs: the token's own string."""
    start: NotRequired[int]
    """With logProbs: characters of the text before it."""
    alternatives: NotRequired[list[Alternative]]
    """With topLogProbs, falling."""
    choice: NotRequired[int]
    """With n > 1."""


class PromptToken(TypedDict):
    """One token of the prompt; `logProb` is None where the model saw nothing before it."""

    id: int
    token: str
    start: int
    logProb: float | None
    alternatives: list[Alternative]


class PromptEvent(TypedDict):
    """The prompt as the model has read it, with echo."""

    text: str
    tokens: NotRequired[list[PromptToken]]
    """With logProbs."""


class WrittenText(TypedDict):
    """One whole choice."""

    text: str
    tokensGenerated: int
    promptTokens: int
    elapsedMs: float
    finishReason: str
    truncated: int
    trajectory: NotRequired[list[TokenEvent]]
    """Left out where the request wants none."""
    effective: dict[str, Any]


class DoneEvent(WrittenText):
    """The end: the text, with n > 1 that of choice 0 without its trajectory."""

    choices: NotRequired[list[WrittenText]]
    """With n > 1: all of them."""


class ErrorEvent(TypedDict):
    """The end without a text; `code` and `status` are those of the error."""

    code: str
    message: str
    status: int
    tokensGenerated: NotRequired[int]
    """Of one that was cancelled."""
    seed: NotRequired[int | None]


GenerationEvent = TokenEvent | PromptEvent | DoneEvent | ErrorEvent


def read_token(data: str) -> TokenEvent:
    """The data of an event `token`."""
    return cast(TokenEvent, json.loads(data))


def read_prompt(data: str) -> PromptEvent:
    """The data of an event `prompt`."""
    return cast(PromptEvent, json.loads(data))


def read_done(data: str) -> DoneEvent:
    """The data of an event `done`."""
    return cast(DoneEvent, json.loads(data))


def read_error(data: str) -> ErrorEvent:
    """The data of an event `error`."""
    return cast(ErrorEvent, json.loads(data))


def choices_of(done: DoneEvent) -> list[WrittenText]:
    """Every choice, also where there is one."""
    return done.get("choices") or [done]
