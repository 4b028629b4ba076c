"""Converts the engine's events to completions in OpenAI's format; there is one writer per HTTP request.

Choices are numbered across all prompts. In a stream, the log-probability of a token is sent together with the part of
the text in which the token begins. A stream therefore contains neither the text of a stop string, which is never sent,
nor the tokens that begin in it. `completions` receives the events.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast
from uuid import uuid4

from common.errors import UnavailableError
from services.api.generations import EngineEvent
from services.api.schemas.completions import CompletionRequest
from tidal_client.wire.completion import Choice, Completion, Logprobs, Usage
from tidal_client.wire.generation_event import (
    EVENT_DONE,
    EVENT_PROMPT,
    EVENT_TOKEN,
    DoneEvent,
    GeneratedChoice,
    PromptEvent,
    PromptToken,
    TokenEvent,
    choices_of,
    read_done,
    read_prompt,
    read_token,
)

Token = TokenEvent | PromptToken
"""A token of a prompt or of a generated text."""


@dataclass
class _ChoiceState:
    """The state of a streamed choice."""

    before: int = 0
    """With `echo`, the number of characters of the prompt, which precedes the text; otherwise 0."""
    text: str = ""
    """The text sent so far, without the prompt."""
    waiting: deque[Token] = field(default_factory=deque)
    """Tokens that are not sent yet, because their text is not sent yet."""


class CompletionWriter:
    """Builds the reply of one request.

    Call either `complete_reply`, or `stream_parts` for each event and then `final_parts`.
    """

    def __init__(self, request: CompletionRequest, fingerprint: str) -> None:
        self.request = request
        self._fingerprint = fingerprint
        self._id = f"cmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._running = [_ChoiceState() for _ in range(len(request.prompts) * request.n)]
        self._used = [0, 0]

    def complete_reply(self, events: Sequence[Sequence[EngineEvent]]) -> Completion:
        """Return the reply for the `prompt` and `done` events of each prompt."""
        choices = []
        for number, prompt_events in enumerate(events):
            data = {event.name: event.data for event in prompt_events}
            prompt = read_prompt(data[EVENT_PROMPT]) if EVENT_PROMPT in data else None
            written = self._written(read_done(data[EVENT_DONE]))
            if len(written) > self.request.n:
                written = sorted(written, key=_log_prob_per_token, reverse=True)[: self.request.n]
            for choice, reply in enumerate(written):
                before = prompt["text"] if prompt else ""
                tokens = [token for token in reply.get("trajectory", []) if _begins_in(token, reply["text"])]
                choices.append(
                    Choice(
                        text=before + reply["text"],
                        index=number * self.request.n + choice,
                        logprobs=self._log_probs(prompt, tokens, len(before)),
                        finish_reason=_finish_reason(reply),
                    )
                )
        return self._completion(choices, usage=self._usage())

    def stream_parts(self, prompt: int, event: EngineEvent) -> list[Completion]:
        """Return the parts to stream for an event of prompt number `prompt`.

        The events of a prompt must be passed in the order in which the engine sent them.
        """
        first = prompt * self.request.n
        if event.name == EVENT_PROMPT:
            data, choices = read_prompt(event.data), []
            for index in range(first, first + self.request.n):
                self._running[index].before = len(data["text"])
                choices.append(Choice(text=data["text"], index=index, logprobs=self._log_probs(data, [], 0)))
        elif event.name == EVENT_TOKEN:
            token = read_token(event.data)
            choice = self._choice(first + token.get("choice", 0), [token], token["text"])
            choices = [choice] if choice.text or choice.logprobs is not None else []
        else:
            choices = []
            for index, reply in enumerate(self._written(read_done(event.data)), first):
                # Send the rest of the text. It was held back, because it could have been the beginning of a stop string
                # or of an incomplete character.
                choices.append(self._choice(index, [], reply["text"][len(self._running[index].text) :]))
                choices[-1].finish_reason = _finish_reason(reply)
        return [self._completion([choice]) for choice in choices]

    def final_parts(self) -> list[Completion]:
        """Return the last parts of a stream: the usage, if the request includes it."""
        options = self.request.stream_options
        return [self._completion([], usage=self._usage())] if options is not None and options.include_usage else []

    def _choice(self, index: int, tokens: Sequence[Token], text: str) -> Choice:
        running = self._running[index]
        running.text += text
        running.waiting.extend(tokens)
        out = []
        while running.waiting and _begins_in(running.waiting[0], running.text):
            out.append(running.waiting.popleft())
        log_probs = self._log_probs(None, out, running.before) if out else None
        return Choice(text=text, index=index, logprobs=log_probs)

    def _written(self, reply: DoneEvent) -> list[GeneratedChoice]:
        """Return the choices of a prompt's `done` event, and add their tokens to the usage."""
        choices = choices_of(reply)
        self._used[0] += reply["promptTokens"]
        self._used[1] += sum(choice["tokensGenerated"] for choice in choices)
        return choices

    def _usage(self) -> Usage:
        read, written = self._used
        return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

    def _log_probs(self, prompt: PromptEvent | None, tokens: Sequence[Token], before: int) -> Logprobs | None:
        """Return the log-probabilities of the prompt's tokens, if `prompt` is given, and then of `tokens`.

        `before` is the number of characters of the choice before the generated text.
        """
        if self.request.logprobs is None:
            return None
        read = prompt["tokens"] if prompt else []
        top = [_likeliest(token) for token in [*read, *tokens]]
        return Logprobs(
            tokens=[token["token"] for token in [*read, *tokens]],
            token_logprobs=[token["logProb"] for token in [*read, *tokens]],
            top_logprobs=top if self.request.logprobs else None,
            text_offset=[token["start"] for token in read] + [before + token["start"] for token in tokens],
        )

    def _completion(self, choices: list[Choice], usage: Usage | None = None) -> Completion:
        return Completion(
            id=self._id,
            created=self._created,
            model=self.request.model,
            system_fingerprint=self._fingerprint,
            choices=choices,
            usage=usage,
        )


def _begins_in(token: Token, text: str) -> bool:
    """Return whether the token begins in `text`.

    `text` is the text that may be sent. It ends before a stop string, and before a part that may become a stop string.
    """
    return "start" not in token or int(token["start"]) < len(text)


def _likeliest(token: Token) -> dict[str, float] | None:
    if token["logProb"] is None:
        return None
    alternatives = {other["text"]: other["logProb"] for other in token.get("alternatives", [])}
    return alternatives | {token["token"]: token["logProb"]}


def _log_prob_per_token(reply: GeneratedChoice) -> float:
    tokens = reply["trajectory"]
    return sum(token["logProb"] for token in tokens) / len(tokens) if tokens else float("-inf")


def _finish_reason(reply: GeneratedChoice) -> Literal["length", "stop"]:
    reason = reply["finishReason"]
    if reason not in ("length", "stop"):
        raise UnavailableError(f"the generation ended early ({reason}); try again", code="cancelled")
    return cast(Literal["length", "stop"], reason)
