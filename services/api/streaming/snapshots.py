"""The present state that a stream begins with, made once for all clients that ask at the same time.

A thousand clients that connect at once, after a restart or when Redis was emptied, would read the same rows a thousand
times. Whoever asks gets a snapshot that was begun after the question, so it holds everything the asker already knows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from services.api.streaming.entries import StreamPosition

StateReader = Callable[[], Awaitable[Any]]
"""Makes the present state, ready for JSON."""


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """A position in a stream and, as JSON, the state made after it was read."""

    position: StreamPosition
    state: str


class StreamSnapshots:
    """One snapshot at a time per stream, shared by all who asked before it began."""

    def __init__(self, position: Callable[[str], Awaitable[StreamPosition]]) -> None:
        self._position = position
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._next: dict[str, asyncio.Task[StreamSnapshot]] = {}

    async def take(self, key: str, make: StateReader) -> StreamSnapshot:
        """Position first, state second: what happens in between is sent twice rather than not at all.

        Raises what `make` raises, and RedisError.
        """
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._make(key, make), name=f"snapshot {key}")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody may have left
        return await asyncio.shield(task)

    async def _make(self, key: str, make: StateReader) -> StreamSnapshot:
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            del self._next[key]  # who asks from now on gets a later one
            position = await self._position(key)
            return StreamSnapshot(position, json.dumps(await make()))
