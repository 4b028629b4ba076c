"""One stream in memory: the newest entries in a ring, and the wake-up of the clients that follow it.

Bounded in entries and in bytes, and so is what one client is handed at a time: a client that does not read keeps its
last batch alive, and there may be hundreds of them. Leaves out: Redis and the reader task (`hub`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

from services.api.streaming.entries import StreamEntry, StreamId, StreamPosition

RING = 2000
"""Entries a topic keeps in memory."""
RING_BYTES = 8 * 1024 * 1024
"""The same in bytes; log lines may be 800 kB an entry."""
BATCH_BYTES = 64 * 1024
"""Handed to a client at a time, about; one entry may be larger."""


class Topic:
    """One stream: its reader task, its ring and the wake-up of its clients."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.clients = 0
        self.ring: deque[StreamEntry] = deque()
        self.base: StreamId | None = None
        """Everything after this id is in the ring; None before the reader knows where it stands."""
        self.epoch = ""
        """Life of the Redis data that the ring belongs to."""
        self.reader: asyncio.Task[None] | None = None
        self.stop_timer: asyncio.TimerHandle | None = None
        """Timer that stops the reader after no client has followed the stream for a while."""
        self._size = 0
        self._published = asyncio.Event()

    def publish(self, entries: list[StreamEntry]) -> None:
        """Add what the reader has read, drop the oldest beyond the ring's size, wake the clients."""
        self.ring.extend(entries)
        self._size += sum(len(entry.encoded) for entry in entries)
        while len(self.ring) > RING or (self._size > RING_BYTES and len(self.ring) > 1):
            oldest = self.ring.popleft()
            self.base = oldest.id
            self._size -= len(oldest.encoded)
        self.wake()

    def restart(self, position: StreamPosition) -> None:
        """Begin anew after `position` (first start, or Redis was emptied)."""
        self.epoch = position.epoch
        self.ring.clear()
        self._size = 0
        self.base = position.id
        self.wake()

    def wake(self) -> None:
        """Let every waiting client look again."""
        published, self._published = self._published, asyncio.Event()
        published.set()

    def next_publication(self) -> asyncio.Event:
        """The event that the next publication sets; take it before looking, wait on it after."""
        return self._published

    def holds(self, cursor: StreamId) -> bool:
        """Whether `cursor` is the place of an entry of the ring, or the one just before it."""
        if cursor == self.base:
            return True
        at = self._first_after(cursor)
        return at > 0 and self.ring[at - 1].id == cursor

    def entries_after(self, cursor: StreamId) -> list[StreamEntry] | None:
        """The next of what follows `cursor`, or None when the ring does not reach back so far."""
        if self.base is None or cursor < self.base:
            return None
        # Nearly every client waits for the newest entry, or the one before it.
        if not self.ring or self.ring[-1].id <= cursor:
            return []
        low = len(self.ring) - 1
        if low and self.ring[low - 1].id > cursor:
            low = self._first_after(cursor)
        batch: list[StreamEntry] = []
        size = 0
        for entry in islice(self.ring, low, None):
            size += len(entry.encoded)
            if batch and size > BATCH_BYTES:
                break
            batch.append(entry)
        return batch

    def _first_after(self, cursor: StreamId) -> int:
        """Index of the first entry beyond `cursor`; the ring's length when there is none."""
        low, high = 0, len(self.ring)
        while low < high:
            middle = (low + high) // 2
            if self.ring[middle].id <= cursor:
                low = middle + 1
            else:
                high = middle
        return low
