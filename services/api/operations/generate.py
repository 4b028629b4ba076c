"""Runs one generation: enqueues the request, receives its events, enforces time limits, and cancels the generation if
the client disconnects.

`common.redis.generation_request` describes the protocol between api and generator. The engine's events already have
camelCase keys; they are therefore forwarded without parsing.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeVar

import anyio
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from common.errors import RateLimitedError, TidalError, UnavailableError
from common.logging import get_logger
from common.redis import keys
from common.redis.celery_settings import HANDOVER_TASK
from common.redis.generation_request import GenerationRequest
from common.redis.keys import GENERATE_QUEUE
from services.api.awake import AwakeTimer, within
from services.api.context import Context
from services.api.generations import EngineEvent, Mailbox
from services.api.operations.checkpoints import check_reference
from services.api.schemas.generate import GenerateRequest
from tidal_client.wire.generation import GenerateReply
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_ERROR, LAST_EVENTS, read_error

log = get_logger(__name__)

RETRY_SECONDS = 5.0
"""Seconds after which a client may retry when the queue is full (`Retry-After`)."""
CHECK_SECONDS = 0.25
"""Seconds between two checks of whether the client is still connected."""
LARGE_CHARACTERS = 100_000
"""A reply with more characters than this is built in a thread, because building it takes some milliseconds."""

T = TypeVar("T")
IsDisconnected = Callable[[], Awaitable[bool]]
"""A function that returns whether the client has disconnected."""


class ClientDisconnected(Exception):
    """Raised when the client has disconnected, so no reply is needed."""


class QueueFull(RateLimitedError):
    """Raised when the number of waiting requests has reached `generate_queue_limit` (429)."""

    code = "generation_queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} requests already wait for a generator; try again later", retry_after=RETRY_SECONDS)


def prepare_generation(context: Context, request: GenerateRequest) -> GenerationRequest:
    """Return the request for the engine. Raises InvalidInputError for an invalid checkpoint or controller."""
    store = context.store
    policy = None
    if request.rl_checkpoint is not None:
        policy = check_reference(store, request.rl_checkpoint, location="body.rlCheckpoint", policy=True)
    return GenerationRequest(
        id=context.generations.new_id(),
        checkpoint=check_reference(store, request.checkpoint, location="body.checkpoint", policy=False),
        prompt=request.prompt,
        seed=request.seed,
        rl_checkpoint=policy,
        stream=request.stream,
        **request.sampling(),
    )


async def event_batches(
    context: Context, request: GenerationRequest, is_disconnected: IsDisconnected
) -> AsyncGenerator[list[EngineEvent]]:
    """Enqueue the request and yield batches of its events; the last event of the last batch is `done`.

    After the first event, an empty batch means that no event arrived for a while.

    If the iteration ends before `done` for any reason, the engine gets a stop request. Raises QueueFull,
    ClientDisconnected, and the error that the engine reports. Raises UnavailableError if the first event does not
    arrive within `generate_queue_seconds`, or `done` within `generate_total_seconds`.
    """
    settings = context.settings
    waited = AwakeTimer(2 * CHECK_SECONDS)
    checked_at = 0.0
    started = yielded = finished = False
    with context.generations.follow(request.id) as mailbox:
        try:
            await _hand_over(context, request, mailbox)
            while not finished:
                waited.lap()
                limit = settings.generate_total_seconds if started else settings.generate_queue_seconds
                remaining = limit - waited.seconds
                if remaining <= 0 and not started and not await _withdraw(context, request):
                    # The request could not be withdrawn, because an engine has taken it. From now on the time limit is
                    # `generate_total_seconds`, although no event has arrived yet.
                    started = True
                    continue
                if remaining <= 0:
                    raise _too_late(settings.generate_total_seconds if started else None, waited.seconds)
                if waited.seconds - checked_at >= CHECK_SECONDS:
                    checked_at = waited.seconds
                    if await is_disconnected():
                        raise ClientDisconnected
                found = await mailbox.take(min(CHECK_SECONDS, remaining))
                if not found:
                    if yielded:
                        yield []
                    continue
                started = True
                # Set `finished` before the yield, because the caller requests no further event after the last one.
                finished = found[-1].name in LAST_EVENTS
                if found[-1].name == EVENT_ERROR:
                    if len(found) > 1:
                        yield found[:-1]
                    raise _engine_error(found[-1].data)
                yielded = True
                yield found
        except QueueFull:
            finished = True  # there is no generation to stop
            raise
        finally:
            if not finished or mailbox.given_up:
                # The shield lets the cancellation reach the engine even if this task is cancelled, for example because
                # the client has disconnected.
                with anyio.CancelScope(shield=True):
                    await context.generations.cancel(request.id)


async def generation_events(
    context: Context, request: GenerationRequest, is_disconnected: IsDisconnected
) -> AsyncGenerator[EngineEvent]:
    """Yield the events of `event_batches` one by one. Raises the same errors."""
    async with aclosing(event_batches(context, request, is_disconnected)) as following:
        async for batch in following:
            for event in batch:
                yield event


async def _hand_over(context: Context, request: GenerationRequest, mailbox: Mailbox) -> None:
    """Enqueue the request.

    Raises QueueFull when `generate_queue_limit` requests are already waiting, and UnavailableError when Redis fails.
    """
    generations = context.generations
    try:
        await within(generations.redis_seconds, _enqueue(context, request))
    except (TimeoutError, OSError, RedisError, KombuError) as error:
        # Celery raises KombuError if the connection is lost.
        raise UnavailableError(
            f"Redis did not accept the request: {error or 'no answer'}; try again", code="redis_unavailable"
        ) from error
    mailbox.handed_over = True


async def _withdraw(context: Context, request: GenerationRequest) -> bool:
    """Remove the request from Redis; return False when a generator has already taken it.

    Raises UnavailableError when Redis does not answer.
    """
    try:
        return bool(await context.redis.delete(keys.generate_request(request.id)))
    except (OSError, RedisError) as error:
        raise UnavailableError(
            f"Redis did not answer while the request waited in the queue: {error or 'no answer'}; try again",
            code="redis_unavailable",
        ) from error


async def _enqueue(context: Context, request: GenerationRequest) -> None:
    settings, generations = context.settings, context.generations
    # Requests that this process is just enqueuing are counted, too. Those of other api processes cannot be counted yet.
    generations.enqueuing += 1
    try:
        if await context.redis.llen(GENERATE_QUEUE) + generations.enqueuing > settings.generate_queue_limit:
            raise QueueFull(settings.generate_queue_limit)
        key, seconds = keys.generate_request(request.id), math.ceil(settings.generate_queue_seconds) + 1
        await context.redis.set(key, request.model_dump_json(), ex=seconds)
        await run_in_threadpool(_notify_engine, context.celery, request)
    finally:
        generations.enqueuing -= 1


async def generate_reply(context: Context, request: GenerationRequest, is_disconnected: IsDisconnected) -> bytes:
    """Return the finished reply, a `GenerateReply` as JSON."""
    async with aclosing(generation_events(context, request, is_disconnected)) as following:
        async for event in following:
            if event.name == EVENT_DONE:
                return await build_reply(len(event.data), partial(_as_reply, event.data))
    raise UnavailableError("the generator ended without a reply; try again")


def _as_reply(data: str) -> bytes:
    return GenerateReply.model_validate_json(data).model_dump_json(by_alias=True).encode()


def _notify_engine(celery: Celery, request: GenerationRequest) -> None:
    celery.send_task(
        HANDOVER_TASK,
        args=[request.id],
        kwargs={"texts": request.n},
        queue=GENERATE_QUEUE,
        retry=False,
        ignore_result=True,
    )


def _too_late(total: float | None, waited: float) -> UnavailableError:
    if total is None:
        return UnavailableError(
            f"no generator accepted the request within {waited:.0f} s, because all are busy or none runs; try again",
            code="generation_queue_timeout",
        )
    return UnavailableError(
        f"the generation was not finished within {total:.0f} s; request fewer tokens", code="generation_timeout"
    )


def _engine_error(data: str) -> TidalError:
    failure = read_error(data)
    error = TidalError(failure.get("message") or "the generator failed", code=failure.get("code") or "generation")
    status = failure.get("status")  # an engine of another version may omit message, code and status
    error.status = status if isinstance(status, int) and 400 <= status <= 599 else 500
    return error


async def build_reply(characters: int, build: Callable[[], T]) -> T:
    """Return the result of `build`; run it in a thread if the reply has many characters."""
    return await run_in_threadpool(build) if characters > LARGE_CHARACTERS else build()
