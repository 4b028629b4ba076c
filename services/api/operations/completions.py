"""Completions in OpenAI's form, made of the events of `operations.generate`.

One request of the engine per prompt; its n choices and those of the other prompts are numbered through. Leaves out: the
wire format of errors, which `middleware` gives everything under `/v1`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore
from common.errors import NotFoundError, TidalError
from common.jobs.generation_request import GenerationRequest
from common.metrics import keys
from services.api.context import Context
from services.api.generations import Event
from services.api.operations import checkpoints
from services.api.operations.checkpoints import check_reference
from services.api.operations.generate import Gone, events
from services.api.schemas.completions import Choice, Completion, CompletionRequest, Logprobs, Model, ModelList, Usage

_PAGE = 200


def prepare(context: Context, request: CompletionRequest) -> list[GenerationRequest]:
    """One request for the engine per prompt. Raises NotFoundError when there is no such model."""
    store = context.store
    try:
        checkpoint = check_reference(store, request.model, location="model", policy=False)
    except TidalError as error:
        raise NotFoundError(error.message.removeprefix("model: "), code="model_not_found") from None
    policy = None
    if request.rl_checkpoint is not None:
        policy = check_reference(store, request.rl_checkpoint, location="rl_checkpoint", policy=True)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    greedy = request.temperature == 0
    return [
        GenerationRequest(
            id=context.generations.new_id(),
            checkpoint=checkpoint,
            prompt=prompt,
            max_tokens=request.max_tokens,
            temperature=1.0 if greedy else request.temperature,
            top_k=1 if greedy else request.top_k,
            top_p=request.top_p,
            repetition_penalty=request.repetition_penalty,
            # The engine numbers the choices of a prompt on from its seed.
            seed=None if request.seed is None else (request.seed + number * request.n) % 2**63,
            gating_mode=request.mode,
            modulation=0.5 if request.modulation is None else request.modulation,
            rl_checkpoint=policy,
            stop=stop,
            n=request.n,
            top_log_probs=request.logprobs or 0,
            stream=request.stream,
        )
        for number, prompt in enumerate(request.prompts)
    ]


class Writer:
    """Turns the engine's events into completions; one per HTTP request."""

    def __init__(self, request: CompletionRequest) -> None:
        self.request = request
        self._id = f"cmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._choices = [_Running() for _ in range(len(request.prompts) * request.n)]
        self._used = [0, 0]

    def whole(self, replies: Sequence[Mapping[str, Any]]) -> Completion:
        """The reply made of the `done` events of all prompts."""
        choices = []
        for number, reply in enumerate(replies):
            for choice, its in enumerate(self._choices_of(reply)):
                index = number * self.request.n + choice
                before = self._echo(number)
                tokens = its["trajectory"]
                choices.append(
                    Choice(
                        text=before + its["text"],
                        index=index,
                        logprobs=self._logprobs(tokens, len(before)),
                        finish_reason=_reason(its),
                    )
                )
        return self._completion(choices, usage=self._usage())

    def begin(self) -> list[Completion]:
        """What a stream begins with: the prompts, where they are to be echoed."""
        if not self.request.echo:
            return []
        parts = []
        for index, running in enumerate(self._choices):
            text = self._echo(index // self.request.n)
            running.sent = len(text)
            parts.append(self._completion([Choice(text=text, index=index)]))
        return parts

    def part(self, prompt: int, event: Event) -> list[Completion]:
        """The parts of a stream that an event of one prompt makes."""
        data = json.loads(event.data)
        if event.name == keys.EVENT_TOKEN:
            index = prompt * self.request.n + data.get("choice", 0)
            running = self._choices[index]
            logprobs = self._logprobs([data], running.sent)
            running.sent += len(data["text"])
            running.text += data["text"]
            return [self._completion([Choice(text=data["text"], index=index, logprobs=logprobs)])]
        parts = []
        for choice, its in enumerate(self._choices_of(data)):
            index = prompt * self.request.n + choice
            # What was held back for a stop string or half a character came with no token.
            rest = its["text"][len(self._choices[index].text) :]
            parts.append(self._completion([Choice(text=rest, index=index, finish_reason=_reason(its))]))
        return parts

    def end(self) -> list[Completion]:
        """What a stream ends with: the usage, where it was asked for."""
        options = self.request.stream_options
        return [self._completion([], usage=self._usage())] if options is not None and options.include_usage else []

    def _choices_of(self, reply: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        choices: list[Mapping[str, Any]] = reply.get("choices") or [reply]
        self._used[0] += reply["promptTokens"]
        self._used[1] += sum(choice["tokensGenerated"] for choice in choices)
        return choices

    def _usage(self) -> Usage:
        read, written = self._used
        return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

    def _echo(self, prompt: int) -> str:
        text = self.request.prompts[prompt]
        return text if self.request.echo and isinstance(text, str) else ""

    def _logprobs(self, tokens: Sequence[Mapping[str, Any]], offset: int) -> Logprobs | None:
        if self.request.logprobs is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token["text"])
        top = [{its["text"]: its["logProb"] for its in token.get("alternatives", [])} for token in tokens]
        return Logprobs(
            tokens=[token["text"] for token in tokens],
            token_logprobs=[token["logProb"] for token in tokens],
            top_logprobs=top if self.request.logprobs else None,
            text_offset=offsets,
        )

    def _completion(self, choices: list[Choice], usage: Usage | None = None) -> Completion:
        return Completion(id=self._id, created=self._created, model=self.request.model, choices=choices, usage=usage)


@dataclass
class _Running:
    """What of a choice has been sent: its text, and the characters with the prompt."""

    text: str = ""
    sent: int = field(default=0)


async def replies(context: Context, prepared: Sequence[GenerationRequest], gone: Gone) -> list[Mapping[str, Any]]:
    """The `done` events of all prompts. One that fails ends all; errors as in `generate.events`."""
    found: dict[int, Mapping[str, Any]] = {}
    async with aclosing(merged(context, prepared, gone)) as following:
        async for prompt, event in following:
            if event.name == keys.EVENT_DONE:
                found[prompt] = json.loads(event.data)
    return [found[number] for number in range(len(prepared))]


async def merged(
    context: Context, prepared: Sequence[GenerationRequest], gone: Gone
) -> AsyncGenerator[tuple[int, Event]]:
    """The events of all prompts as they come, with the number of their prompt; errors as in `generate.events`."""
    arrived: asyncio.Queue[tuple[int, Event | Exception | None]] = asyncio.Queue()

    async def follow(number: int, request: GenerationRequest) -> None:
        try:
            async with aclosing(events(context, request, gone)) as following:
                async for event in following:
                    arrived.put_nowait((number, event))
        except Exception as error:  # raised again by the reader below
            arrived.put_nowait((number, error))
        else:
            arrived.put_nowait((number, None))

    tasks = [asyncio.create_task(follow(number, request)) for number, request in enumerate(prepared)]
    left = len(tasks)
    try:
        while left:
            number, event = await arrived.get()
            if event is None:
                left -= 1
            elif isinstance(event, Exception):
                raise event
            else:
                yield number, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def models(session: Session, store: ArtifactStore) -> ModelList:
    """Every checkpoint that text can be generated from."""
    found: list[Model] = []
    cursor: str | None = None
    while True:
        page = checkpoints.overview(session, store, limit=_PAGE, cursor=cursor)
        for group in page.experiments:
            found += [
                Model(id=its.reference, created=int(its.created_at.timestamp()))
                for its in group.checkpoints
                if its.usable_as_base
            ]
        cursor = page.next_cursor
        if cursor is None:
            return ModelList(data=found)


def model(session: Session, store: ArtifactStore, name: str) -> Model:
    """One of them, by its id or an alias of it. NotFoundError."""
    try:
        reference = check_reference(store, name, location="model", policy=False)
    except TidalError as error:
        raise NotFoundError(error.message.removeprefix("model: "), code="model_not_found") from None
    its = next((its for its in models(session, store).data if its.id == reference), None)
    if its is None:
        raise NotFoundError(f"there is no model {name!r}", code="model_not_found")
    return its


def _reason(choice: Mapping[str, Any]) -> Any:
    return "length" if choice["finishReason"] == "length" else "stop"
