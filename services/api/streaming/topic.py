"""Keeps the newest entries of one stream in a ring buffer, and wakes the clients when new entries arrive.

The number and the total size of the entries in the ring are limited. The size of a batch is limited, too, because a
client that does not read keeps its last batch in memory, and there may be hundreds of such clients. Redis and the
reader task are in `hub`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

from services.api.streaming.entries import StreamEntry, StreamId, StreamPosition

RING = 2000
"""Maximum number of entries that a topic keeps in memory."""
RING_BYTES = 8 * 1024 * 1024
"""Maximum total size in bytes of the entries in memory. A single entry with log lines may have 800 kB."""
BATCH_BYTES = 64 * 1024
"""Maximum size of a batch in bytes. A batch with a single entry may be larger."""


class Topic:
    """One stream: its reader task, its ring buffer, and the event that wakes its clients."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.clients = 0
        self.ring: deque[StreamEntry] = deque()
        self.base: StreamId | None = None
        """The ring contains all entries that are newer than this id. None until the reader has determined its start
        position."""
        self.epoch = ""
        """Identifies the Redis data from which the ring was read; it changes when Redis is emptied."""
        self.reader: asyncio.Task[None] | None = None
        self.stop_timer: asyncio.TimerHandle | None = None
        """Timer that stops the reader if the stream still has no clients; None if it was never started."""
        self._size = 0
        self._published = asyncio.Event()

    def publish(self, entries: list[StreamEntry]) -> None:
        """Add new entries, drop the oldest ones beyond the limits, and wake the clients."""
        self.ring.extend(entries)
        self._size += sum(len(entry.encoded) for entry in entries)
        while len(self.ring) > RING or (self._size > RING_BYTES and len(self.ring) > 1):
            oldest = self.ring.popleft()
            self.base = oldest.id
            self._size -= len(oldest.encoded)
        self.wake()

    def restart(self, position: StreamPosition) -> None:
        """Clear the ring and continue after `position`. Called at the first start and after Redis was emptied."""
        self.epoch = position.epoch
        self.ring.clear()
        self._size = 0
        self.base = position.id
        self.wake()

    def wake(self) -> None:
        """Wake all waiting clients, so that they check for new entries."""
        published, self._published = self._published, asyncio.Event()
        published.set()

    def next_publication(self) -> asyncio.Event:
        """Return the event that the next call of `wake` sets.

        Call this before `entries_after`, or an entry may be missed.
        """
        return self._published

    def holds(self, cursor: StreamId) -> bool:
        """Return whether `cursor` is the id of an entry in the ring, or the id directly before the ring."""
        if cursor == self.base:
            return True
        at = self._first_after(cursor)
        return at > 0 and self.ring[at - 1].id == cursor

    def entries_after(self, cursor: StreamId) -> list[StreamEntry] | None:
        """Return the next batch of entries after `cursor`; None if the ring may lack entries after the cursor."""
        if self.base is None or cursor < self.base:
            return None
        # Most calls need only the newest entry, so this case is checked before the binary search.
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
        """Return the index of the first entry after `cursor`; the length of the ring if there is none."""
        low, high = 0, len(self.ring)
        while low < high:
            middle = (low + high) // 2
            if self.ring[middle].id <= cursor:
                low = middle + 1
            else:
                high = middle
        return low
