"""`POST /api/generate`: text from a checkpoint, as a whole or token by token."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from common.access import address_group
from common.errors import TidalError
from common.redis.generation_events import error_data
from services.api.auth import Caller, ContextDep, reader
from services.api.context import Context
from services.api.generations import Event
from services.api.operations import generate as operation
from services.api.rate_limit import TooManyRequests
from services.api.schemas.generate import GenerateRequest
from services.api.schemas.problems import problem_responses
from services.api.streaming import sse
from services.api.streaming.clients import LiveStream
from tidal_client.wire.generation import GenerateReply
from tidal_client.wire.generation_event import EVENT_ERROR

router = APIRouter(tags=["generation"])
T = TypeVar("T")


@router.post(
    "/api/generate",
    summary="Generate text",
    response_model=GenerateReply,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The text, or with `stream` its tokens"},
        **problem_responses(429, 503),
    },
)
async def generate(
    body: GenerateRequest,
    request: Request,
    context: ContextDep,
    caller: Annotated[Caller | None, Depends(reader)],
) -> Response:
    """Open like reads. Callers without a token are rate-limited by address (`RateLimit` headers, 429). 503 when no
    generator accepts the request within 30 s or it is not finished within 120 s. With `stream`, sends events `token`,
    then `done` with the whole reply."""
    if body.stream:
        context.stream_clients.require_room()
    headers = await limit(context, request, caller)
    prepared = await run_in_threadpool(operation.prepare, context, body)
    try:
        if body.stream:
            batches = operation.batches(context, prepared, request.is_disconnected)
            return await stream_of(context, batches, _encode, headers)
        reply = await operation.whole(context, prepared, request.is_disconnected)
    except operation.ClientGone:
        return Response(status_code=204)  # nobody reads it
    return Response(reply, media_type="application/json", headers=headers)


async def stream_of(
    context: Context, events: AsyncGenerator[T], encode: Callable[[T], bytes], headers: dict[str, str]
) -> LiveStream:
    """Server-sent events; an error on the way is the last of them. Waits for the first, so that one before it is an
    ordinary error."""
    first = await anext(events)

    async def body() -> AsyncGenerator[bytes]:
        try:
            yield encode(first)
            async for its in events:
                yield encode(its)
        except operation.ClientGone:
            return
        except TidalError as error:
            yield sse.encode(None, EVENT_ERROR, json.dumps(error_data(context.paths.hide_in(error))))
        finally:
            await events.aclose()

    reply = LiveStream(body(), context.stream_clients)
    reply.headers.update(headers)
    return reply


def _encode(batch: list[Event]) -> bytes:
    return b"".join(map(encode_event, batch))


def encode_event(event: Event) -> bytes:
    """One event on the wire."""
    return sse.encode(None, event.name, event.data)


async def limit(context: Context, request: Request, caller: Caller | None) -> dict[str, str]:
    """Count a caller, by token or by address; the headers of its bucket, which errors carry too. TooManyRequests."""
    limiter = context.limiter if caller is None else context.token_limiter
    if limiter is None:
        return {}
    address = request.client.host if request.client else "unknown"
    verdict = await limiter.take(address_group(address) if caller is None else caller.name)
    if verdict is None:
        return {}
    if not verdict.allowed:
        raise TooManyRequests(verdict, "" if caller is not None else ", or send a token")
    # Whatever comes of the request, its reply tells them (`middleware`).
    request.state.reply_headers = verdict.headers()
    return verdict.headers()
