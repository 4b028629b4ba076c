"""Takes the snapshots of the current state with which streams begin. Clients that connect at the same time share a
snapshot.

Without sharing, a thousand clients that connect at once (after a restart, or after Redis was emptied) would read the
same rows a thousand times. A client only gets a snapshot that was begun after its request, because an older one may
lack changes that the client already knows.
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
"""A function that reads the current state and returns it as data that JSON can encode."""


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """A position in a stream, and the state as JSON. The state was read after the position."""

    position: StreamPosition
    state: str


class StreamSnapshots:
    """Takes one snapshot at a time per stream. All clients that wait when a snapshot begins get this snapshot."""

    def __init__(self, position: Callable[[str], Awaitable[StreamPosition]]) -> None:
        self._position = position
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._next: dict[str, asyncio.Task[StreamSnapshot]] = {}

    async def take(self, key: str, make: StateReader) -> StreamSnapshot:
        """Return a snapshot of the stream `key`. `make` reads the state.

        The position is read before the state. A change between the two is therefore sent twice instead of being lost.
        Raises what `make` raises, and RedisError.
        """
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._make(key, make), name=f"snapshot {key}")
            # All waiting clients may disconnect. Retrieving the exception here avoids asyncio's warning in that case.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _make(self, key: str, make: StateReader) -> StreamSnapshot:
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            del self._next[key]  # requests from now on need a later snapshot
            position = await self._position(key)
            return StreamSnapshot(position, json.dumps(await make()))
