"""Large replies are built in a thread, so that the event loop goes on with those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")

LARGE_CHARACTERS = 100_000
"""Beyond this, some milliseconds of work."""


async def built(characters: int, build: Callable[[], T]) -> T:
    """What `build` gives; it works on so many characters."""
    return await run_in_threadpool(build) if characters > LARGE_CHARACTERS else build()
