"""Gives all clients of a stream its entries through one Redis reader. No client misses an entry or gets an entry twice.

The reader of a `Topic` uses one blocking XREAD and keeps the newest entries in a ring buffer. Each client has only a
cursor, which is the id of the last entry that it received. It receives entries from the ring buffer if the ring
contains all entries after the cursor. Otherwise it reads pages from Redis until it has caught up. Therefore a slow
client needs only the memory of one batch, and the change from replayed to live entries needs no special handling.

A stream cannot continue at a cursor if entries after the cursor were trimmed, if the cursor lies beyond the last id, or
if Redis was emptied after the cursor was sent. `follow` then yields a `Reset`; the caller sends a snapshot, and the
stream continues at the position in `Reset`. The value of the key `tidal:epoch` shows whether Redis was emptied, because
it begins with the Redis time at which it was written: a cursor with an earlier time belongs to deleted data. The wire
format and the snapshots are in `sse`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from common.logging import get_logger
from common.redis.keys import EPOCH
from services.api.http_metrics import HttpMetrics
from services.api.streaming.entries import (
    ORIGIN,
    StreamEntry,
    StreamId,
    StreamPosition,
    entry_of,
    format_id,
    page_after,
    parse_id,
    read_after,
)
from services.api.streaming.topic import BATCH_BYTES, Topic

log = get_logger(__name__)

BLOCK_MILLISECONDS = 2000
"""Longest wait of one XREAD. It must be shorter than the socket timeout of the reader's connection."""
PAGE = 500
"""Maximum number of entries per read."""
FIRST_PAGE = 16
"""Number of entries in the first page that a client reads from Redis. Later pages depend on the size of the entries."""
PAGES_AT_ONCE = 8
"""Number of clients that may read from Redis at the same time; others wait."""
EPOCH_CHECK_SECONDS = 1.0
RETRY_SECONDS = 1.0

_ENSURE_EPOCH = """
local epoch = redis.call('GET', KEYS[1])
if epoch then return epoch end
local clock = redis.call('TIME')
epoch = string.format('%d%03d-%s', clock[1], math.floor(clock[2] / 1000), ARGV[1])
redis.call('SET', KEYS[1], epoch)
return epoch
"""


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream could not continue at the cursor. The caller must send a snapshot; the stream then continues after
    `position`."""

    position: StreamId
    reason: str


class StreamHub:
    """Reads the streams that clients of this process follow, and passes their entries to the clients."""

    def __init__(self, redis: Redis, blocking_redis: Redis, metrics: HttpMetrics, *, linger_seconds: float) -> None:
        """Both Redis clients must decode replies to text.

        The socket timeout of `blocking_redis` must be longer than BLOCK_MILLISECONDS. The reader of a stream runs for
        another `linger_seconds` after the last client has disconnected, so that clients that reconnect find the ring
        buffer.
        """
        self._linger_seconds = linger_seconds
        self._redis = redis
        self._blocking = blocking_redis
        self._metrics = metrics
        self._topics: dict[str, Topic] = {}
        self._paging = asyncio.Semaphore(PAGES_AT_ONCE)
        self._ensure_epoch = redis.register_script(_ENSURE_EPOCH)
        self.closing = asyncio.Event()

    async def close(self) -> None:
        """End all streams and their readers. Streams that begin later end at once."""
        self.closing.set()
        readers = [topic.reader for topic in self._topics.values() if topic.reader is not None]
        for topic in self._topics.values():
            topic.wake()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def ensure_epoch(self) -> str:
        """Return the epoch of the Redis data.

        If Redis has none because it was emptied, write a new one. Raises RedisError.
        """
        return str(await self._ensure_epoch(keys=[EPOCH], args=[secrets.token_hex(8)]))

    async def position(self, key: str) -> StreamPosition:
        """Return the position of the newest entry.

        Call this before reading the state for a snapshot. Raises RedisError.
        """
        epoch = await self.ensure_epoch()
        return StreamPosition(_last_id(await self._info(key)), epoch)

    def epoch_of(self, key: str, cursor: StreamId) -> str | None:
        """Return the epoch of a cursor that is in the ring buffer and therefore valid; None for any other cursor."""
        topic = self._topics.get(key)
        return topic.epoch if topic is not None and topic.holds(cursor) else None

    def wake(self) -> None:
        """Wake every client. `follow` yields an empty batch to a client without new entries."""
        for topic in self._topics.values():
            topic.wake()

    async def follow(self, key: str, cursor: StreamId, epoch: str = "") -> AsyncGenerator[list[StreamEntry] | Reset]:
        """Yield all entries after `cursor` in batches, in order and without duplicates, until `close` is called.

        An empty batch means that `wake` was called and there are no new entries. If `cursor` or its epoch comes from
        the method `position` or `epoch_of`, pass the epoch that this method returned. An empty `epoch` means that a
        client sent the cursor, so the cursor is checked first.
        """
        count = FIRST_PAGE
        waited = False
        async with self._join(key) as topic:
            while not self.closing.is_set():
                published = topic.next_publication()
                batch = topic.entries_after(cursor) if topic.epoch == epoch else None
                if batch is None and topic.base is not None:
                    try:
                        async with self._paging:
                            reset, epoch = await self._check_cursor(key, cursor, epoch)
                            batch = [] if reset is not None else await self._page(key, cursor, count)
                        if reset is not None:
                            self._metrics.sse_resets.inc()
                            cursor = reset.position
                            yield reset
                            continue
                        count = _next_count(batch, count)
                        if not batch:
                            # The stream is empty, it was just trimmed, or the reader has not noticed the new epoch yet.
                            await self._wait_or_retry(published)
                            continue
                    except RedisError as error:
                        log.warning("replay from Redis failed, retrying", stream=key, error=str(error))
                        epoch = ""
                        await self._wait_or_retry(self.closing)
                        continue
                if batch:
                    cursor = batch[-1].id
                    waited = False
                    yield batch
                else:
                    if waited:
                        yield []
                    waited = True
                    await published.wait()

    @asynccontextmanager
    async def _join(self, key: str) -> AsyncIterator[Topic]:
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(key)
            topic.reader = asyncio.create_task(self._read(topic), name=f"reader {key}")
            self._metrics.sse_readers.set(len(self._topics))
        topic.clients += 1
        try:
            yield topic
        finally:
            topic.clients -= 1
            if topic.clients == 0:
                if topic.stop_timer is not None:
                    topic.stop_timer.cancel()
                topic.stop_timer = asyncio.get_running_loop().call_later(
                    self._linger_seconds, self._stop_reading, topic
                )

    def _stop_reading(self, topic: Topic) -> None:
        """Stop the reader of a stream if the stream has no clients."""
        if topic.clients == 0 and self._topics.get(topic.key) is topic:
            del self._topics[topic.key]
            self._metrics.sse_readers.set(len(self._topics))
            if topic.reader is not None:
                topic.reader.cancel()

    async def _read(self, topic: Topic) -> None:
        """Publish the entries of the stream to the topic.

        Restart the topic if Redis was emptied; retry while Redis is unavailable.
        """
        last: StreamId = ORIGIN
        checked_at = 0.0
        # The loop checks whether to stop, because asyncio.wait_for of Python 3.11, which redis-py uses, may swallow a
        # cancellation.
        while self._topics.get(topic.key) is topic and not self.closing.is_set():
            try:
                if time.monotonic() - checked_at >= EPOCH_CHECK_SECONDS:
                    if await self.ensure_epoch() != topic.epoch:
                        if topic.epoch:
                            log.warning("Redis was emptied, restarting the stream", stream=topic.key)
                        position = await self.position(topic.key)
                        last = position.id
                        topic.restart(position)
                    checked_at = time.monotonic()
                found = await read_after(
                    self._blocking, topic.key, format_id(last), count=PAGE, block=BLOCK_MILLISECONDS
                )
                entries = [entry_of(*raw) for raw in found]
                if entries:
                    last = entries[-1].id
                    topic.publish(entries)
            except RedisError as error:
                log.warning("stream reader cannot reach Redis, retrying", stream=topic.key, error=str(error))
                checked_at = 0.0
                await asyncio.sleep(RETRY_SECONDS)

    async def _check_cursor(self, key: str, cursor: StreamId, known: str) -> tuple[Reset | None, str]:
        """Return (reset, current epoch). `reset` is None if the stream can continue at the cursor.

        `known` is the epoch for which the cursor was already checked; empty if the cursor was never checked.
        """
        epoch = await self.ensure_epoch()
        info = await self._info(key)
        last = _last_id(info)
        if cursor > last:
            return Reset(last, "the cursor lies beyond the end of the stream"), epoch
        if info is None:
            return None, epoch
        first_entry = info["first-entry"]
        first = parse_id(first_entry[0]) if first_entry else None
        trimmed = int(info["entries-added"]) > int(info["length"])
        if trimmed and (first is None or cursor < first) and cursor != last:
            return Reset(last, "the entries after the cursor are no longer kept"), epoch
        began, _, _ = epoch.partition("-")
        if epoch != known and cursor != ORIGIN and began.isdecimal() and cursor[0] < int(began):
            return Reset(last, "Redis was emptied after the cursor was sent"), epoch
        return None, epoch

    async def _page(self, key: str, cursor: StreamId, count: int) -> list[StreamEntry]:
        found = await page_after(self._redis, key, format_id(cursor), count=min(count, PAGE))
        return [entry_of(*raw) for raw in found]

    async def _info(self, key: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = await self._redis.xinfo_stream(key)
        except ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        return info

    async def _wait_or_retry(self, unless: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                await unless.wait()


def _last_id(info: dict[str, Any] | None) -> StreamId:
    return ORIGIN if info is None else parse_id(info["last-generated-id"])


def _next_count(page: list[StreamEntry], count: int) -> int:
    """Return the number of entries to read next. It is chosen so that a page has about BATCH_BYTES."""
    size = sum(len(entry.encoded) for entry in page)
    return max(1, BATCH_BYTES * len(page) // size) if size else count
