"""Helpers of the routes that generate text: the rate limit of a caller, and replies as server-sent events.

`operations.generate` runs the generations. The routes of `/v1` use only the rate limit, because their events have
OpenAI's format.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from fastapi import Request

from common.access import address_group
from common.errors import TidalError
from common.redis.generation_events import error_data
from services.api.callers import Caller
from services.api.context import Context
from services.api.generations import EngineEvent
from services.api.operations.generate import ClientDisconnected
from services.api.rate_limit import TooManyRequests
from services.api.streaming.clients import LiveStream
from services.api.streaming.entries import encode_sse
from tidal_client.wire.generation_event import EVENT_ERROR

T = TypeVar("T")


async def enforce_rate_limit(context: Context, request: Request, caller: Caller | None) -> dict[str, str]:
    """Count a request of the caller, who is identified by token or address, and return the rate-limit headers for the
    reply.

    Error replies contain these headers too. Raises TooManyRequests.
    """
    limiter = context.limiter if caller is None else context.token_limiter
    if limiter is None:
        return {}
    address = request.client.host if request.client else "unknown"
    decision = await limiter.take(address_group(address) if caller is None else caller.token_id or caller.name)
    if decision is None:
        return {}
    if not decision.allowed:
        raise TooManyRequests(decision, "" if caller is not None else ", or send a token")
    # `middleware` adds these headers to every reply of the request, including errors.
    request.state.reply_headers = decision.headers()
    return decision.headers()


async def stream_response(
    context: Context, events: AsyncGenerator[T], encoded: Callable[[T], bytes], headers: dict[str, str]
) -> LiveStream:
    """Return a reply that sends `events` as server-sent events.

    Waits for the first event, because an error before it must become an ordinary error reply. A later error is sent as
    the last event.
    """
    first = await anext(events)

    async def body() -> AsyncGenerator[bytes]:
        try:
            yield encoded(first)
            async for event in events:
                yield encoded(event)
        except ClientDisconnected:
            return
        except TidalError as error:
            yield encode_sse(None, EVENT_ERROR, json.dumps(error_data(context.paths.hide_in(error))))
        finally:
            await events.aclose()

    reply = LiveStream(body(), context.stream_clients)
    reply.headers.update(headers)
    return reply


def encode_event(event: EngineEvent) -> bytes:
    """Return the bytes of a server-sent event."""
    return encode_sse(None, event.name, event.data)
