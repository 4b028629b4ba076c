"""Runs analyses while the client waits: generates the texts with the generator's engine and analyses them.

`common.analysis` computes the results, and `operations.analyses` saves them. Analyses that are too long for an open
connection run as jobs.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import cast

from pydantic.alias_generators import to_camel
from starlette.concurrency import run_in_threadpool

from common.analysis import GeneratedSample, SampleGroup, analysis_result, plan_samples
from common.artifacts import ArtifactStore
from common.config import AnalysisConfig, build
from common.errors import ConfigError, InvalidInputError
from common.redis.generation_request import GenerationRequest
from common.words import plural
from services.api.context import Context
from services.api.generations import EngineEvent
from services.api.operations.checkpoints import check_reference
from services.api.operations.completions import merged_events
from services.api.operations.generate import IsDisconnected
from services.api.schemas.analyses import AnalyzeRequest
from tidal_client.vocabulary import GatingMode
from tidal_client.wire.analysis import AnalysisProgress
from tidal_client.wire.generation_event import EVENT_DONE, GeneratedChoice, choices_of, read_done

MAX_SILENT_TOKENS = 4096
"""Maximum number of tokens that an analysis without `stream` may generate."""
MAX_STREAMED_TOKENS = 20_000
"""Maximum number of tokens that an analysis with `stream` may generate."""
TEXTS_AT_ONCE = 32
"""Number of texts generated at the same time: half of an engine's slots, to leave the other half to other requests."""
PROGRESS_SECONDS = 0.2
"""Minimum number of seconds between two `progress` events."""

EVENT_PROGRESS = "progress"


@dataclass(frozen=True)
class PreparedAnalysis:
    """A checked analysis: its configuration, and its checkpoints with aliases resolved."""

    config: AnalysisConfig
    checkpoint: str
    rl_checkpoint: str | None
    stream: bool


def prepare_analysis(store: ArtifactStore, request: AnalyzeRequest) -> PreparedAnalysis:
    """Check a request and return the analysis to run.

    Raises InvalidInputError, which names the invalid field. The code of the error is `analysis_too_long` if the
    analysis must run as a job.
    """
    values = request.model_dump(exclude={"checkpoint", "rl_checkpoint", "stream"})
    try:
        config = build(AnalysisConfig, values, where="body")
    except ConfigError as error:
        raise _with_request_locations(error) from None
    limit = MAX_STREAMED_TOKENS if request.stream else MAX_SILENT_TOKENS
    if config.token_limit > limit:
        raise _too_long(config, stream=request.stream)
    if config.uses_policy and request.rl_checkpoint is None:
        raise InvalidInputError.at(
            "body.rlCheckpoint", "gatingMode learned needs a controller; or choose gatingMode random or fixed"
        )
    if not config.uses_policy and request.rl_checkpoint is not None:
        raise InvalidInputError.at(
            "body.rlCheckpoint",
            "a controller is used only with gatingMode learned, and never for kind sweep; leave it out",
        )
    policy = None
    if request.rl_checkpoint is not None:
        policy = check_reference(store, request.rl_checkpoint, location="body.rlCheckpoint", policy=True)
    checkpoint = check_reference(store, request.checkpoint, location="body.checkpoint", policy=False)
    return PreparedAnalysis(config, checkpoint, policy, request.stream)


async def analysis_events(
    context: Context, prepared: PreparedAnalysis, is_disconnected: IsDisconnected
) -> AsyncGenerator[EngineEvent]:
    """Yield `progress` events, then `done` with the result.

    Raises the errors of `generation_events`, and InvalidInputError when all texts of a prompt are empty.
    """
    begun = time.monotonic()
    parts = plan_samples(prepared.config)
    made: list[list[GeneratedSample]] = [[] for _ in parts]
    progress = _Progress(prepared.config)
    for numbers in _batches(parts):
        requests = [_request(context, prepared, parts[number]) for number in numbers]
        async with aclosing(merged_events(context, requests, is_disconnected)) as following:
            async for place, event in following:
                if event.name == EVENT_DONE:
                    made[numbers[place]] = [_sample(choice) for choice in choices_of(read_done(event.data))]
                    progress.finished(made[numbers[place]])
                elif prepared.stream:
                    progress.tokens += 1
                if progress.due():
                    yield progress.event()
    result = await run_in_threadpool(
        partial(
            analysis_result,
            prepared.config,
            made,
            checkpoint=prepared.checkpoint,
            rl_checkpoint=prepared.rl_checkpoint,
            elapsed_ms=1000 * (time.monotonic() - begun),
        )
    )
    yield EngineEvent(EVENT_DONE, json.dumps(result))


async def run_analysis(context: Context, prepared: PreparedAnalysis, is_disconnected: IsDisconnected) -> str:
    """Return the result of the analysis as JSON."""
    async with aclosing(analysis_events(context, prepared, is_disconnected)) as following:
        return [event.data async for event in following][-1]


class _Progress:
    """Counts texts and tokens, and decides when a `progress` event is due."""

    def __init__(self, config: AnalysisConfig) -> None:
        self._config = config
        self._sent_at = -PROGRESS_SECONDS
        self._texts = 0
        self._finished_tokens = 0
        self.tokens = 0

    def finished(self, samples: Sequence[GeneratedSample]) -> None:
        self._texts += len(samples)
        self._finished_tokens += sum(len(sample.token_ids) for sample in samples)
        self.tokens = max(self.tokens, self._finished_tokens)

    def due(self) -> bool:
        return time.monotonic() - self._sent_at >= PROGRESS_SECONDS

    def event(self) -> EngineEvent:
        self._sent_at = time.monotonic()
        progress = AnalysisProgress(
            texts=self._texts,
            texts_total=self._config.samples,
            tokens=self.tokens,
            most_tokens=self._config.token_limit,
        )
        return EngineEvent(EVENT_PROGRESS, progress.model_dump_json(by_alias=True))


def _batches(parts: Sequence[SampleGroup]) -> Iterator[list[int]]:
    """Divide `parts` into groups of consecutive parts, and yield the indices of each group.

    All parts of a group need at most `TEXTS_AT_ONCE` texts together. A part that alone needs more is its own group.
    """
    numbers: list[int] = []
    texts = 0
    for number, part in enumerate(parts):
        if numbers and texts + part.samples > TEXTS_AT_ONCE:
            yield numbers
            numbers, texts = [], 0
        numbers.append(number)
        texts += part.samples
    yield numbers


def _request(context: Context, prepared: PreparedAnalysis, part: SampleGroup) -> GenerationRequest:
    return GenerationRequest(
        id=context.generations.new_id(),
        checkpoint=prepared.checkpoint,
        prompt=part.prompt,
        max_tokens=prepared.config.max_tokens,
        seed=part.seed,
        n=part.samples,
        gating_mode=part.gating_mode,
        modulation=part.modulation,
        rl_checkpoint=prepared.rl_checkpoint if part.gating_mode is GatingMode.LEARNED else None,
        stream=prepared.stream,
    )


def _sample(choice: GeneratedChoice) -> GeneratedSample:
    tokens = choice["trajectory"]
    return GeneratedSample(
        text=choice["text"],
        finish_reason=choice["finishReason"],
        token_ids=[token["id"] for token in tokens],
        token_texts=[token["text"] for token in tokens],
        modulation=[cast(float, token["modulation"]) for token in tokens],
    )


def _too_long(config: AnalysisConfig, *, stream: bool) -> InvalidInputError:
    hint = "submit a job of type analysis (`tidal analyze` with `--job`)"
    if not stream and config.token_limit <= MAX_STREAMED_TOKENS:
        hint = f"set `stream` (up to {MAX_STREAMED_TOKENS} tokens), or {hint}"
    message = (
        f"{plural(config.samples, 'text')} of up to {plural(config.max_tokens, 'token')} may have "
        f"{plural(config.token_limit, 'token')} together, but the limit of an immediate analysis is "
        f"{MAX_STREAMED_TOKENS if stream else MAX_SILENT_TOKENS}; {hint}"
    )
    errors = [{"location": "body.maxTokens", "message": message}]
    return InvalidInputError(message, errors=errors, code="analysis_too_long")


def _with_request_locations(error: ConfigError) -> InvalidInputError:
    """Return the error of a configuration as an error of the request, with the locations of the fields in the body."""
    findings = [
        {
            **item,
            "location": ".".join(["body", *(to_camel(part) for part in item["location"].split(".") if part)]),
        }
        for item in error.errors
    ]
    text = "; ".join(f"{item['location']}: {item['message']}" for item in findings)
    return InvalidInputError(text, errors=findings)
