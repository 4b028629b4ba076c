"""Small request bodies are accepted even while large ones use all memory for bodies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from services.api.middleware import MAX_HELD_BYTES, MIB, SMALL_BYTES, BodyLimit

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/api/jobs", "headers": []}


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass


async def ask(limit: BodyLimit, *blocks: int, end: asyncio.Event | None = None) -> None:
    """Pass a request to `limit`. Its body has one block per size in `blocks`.

    The body ends when `end` is set; if `end` is None, it ends after the last block.
    """
    messages: list[Message] = [{"type": "http.request", "body": bytes(size), "more_body": True} for size in blocks]

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        if end is not None:
            await end.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None:
        raise AssertionError("BodyLimit sends no reply itself")

    await limit(SCOPE, receive, send)


def test_small_bodies_pass_while_large_ones_fill_the_memory() -> None:
    async def run() -> None:
        limit, end = BodyLimit(reads_all), asyncio.Event()
        held = [asyncio.create_task(ask(limit, MIB, end=end)) for _ in range(MAX_HELD_BYTES // MIB + 8)]
        await asyncio.sleep(0.05)
        assert limit.held > MAX_HELD_BYTES - 2 * MIB
        await ask(limit, SMALL_BYTES)
        await asyncio.gather(*(ask(limit, 100) for _ in range(50)))
        with pytest.raises(HTTPException) as refused:
            await ask(limit, SMALL_BYTES, MIB // 2)
        assert refused.value.status_code == 503
        end.set()
        assert any(await asyncio.gather(*held, return_exceptions=True)), "some of the large bodies were refused"
        assert limit.held == 0
        await ask(limit, MIB)

    asyncio.run(run())
