"""The generations that this process waits for: one Redis reader for all of them, a mailbox for each.

Engines write to the stream of this process (`common.jobs.generation_events`); the reader runs while there are
mailboxes. Every second it looks whether the engines that it has heard, or that took a request, still live, ends the
generations of one that does not with an error, and drops what it has read from Redis; it marks
itself as living too. Leaves out: deadlines and what is made of the events (`operations.generate`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.errors import TidalError, UnavailableError
from common.jobs.generation_events import ENGINE, error_data, new_reader, new_request_id, read_entry
from common.logging import get_logger
from common.metrics import keys
from services.api.redis_streams import read_after

log = get_logger(__name__)

BLOCK_MILLISECONDS = 1000
"""Longest wait of one XREAD; the reader's socket timeout lies above it."""
PAGE = 100
"""Most entries per read; one holds a step of an engine."""
LOOK_SECONDS = 1.0
MISSES = 2
"""Looks in a row that must miss an engine before its clients are told."""
RETRY_SECONDS = 0.5
DRAIN_SECONDS = 3.0
"""What generations have to finish when the server stops."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a generation; `data` is JSON."""

    name: str
    data: str


class Mailbox:
    """What has come for one generation; for one task. `engine` is the engine that spoke last."""

    def __init__(self) -> None:
        self.engine = ""
        self._ready: list[Event] = []
        self._news = asyncio.Event()

    def put(self, event: Event) -> None:
        """One more."""
        self._ready.append(event)
        self._news.set()

    async def take(self, seconds: float) -> list[Event]:
        """All that is ready, waiting up to `seconds` for the first; empty when none came."""
        if not self._ready:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
        ready, self._ready = self._ready, []
        self._news.clear()
        return ready


class Generations:
    """One per app. `ringing` are those on their way into the queue, which its length does not show yet."""

    def __init__(self, redis: Redis, blocking: Redis) -> None:
        self.ringing = 0
        self._reader = new_reader()
        self._redis = redis
        self._blocking = blocking
        self._mailboxes: dict[str, Mailbox] = {}
        self._missed: dict[str, int] = {}
        self._last = "0-0"
        self._task: asyncio.Task[None] | None = None

    def new_id(self) -> str:
        """The id of a request that this process will follow."""
        return new_request_id(self._reader)

    @contextmanager
    def follow(self, request_id: str) -> Iterator[Mailbox]:
        """A mailbox for the events of a request with an id of `new_id`."""
        mailbox = self._mailboxes[request_id] = Mailbox()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="reader of generations")
        try:
            yield mailbox
        finally:
            del self._mailboxes[request_id]

    def drain(self) -> None:
        """The server is about to stop: what is not finished in a few seconds ends with an error."""
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._turn_away)

    async def close(self) -> None:
        """End the reader."""
        task = self._task
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        looked_at = time.monotonic()
        try:
            while self._mailboxes:
                try:
                    await self._read()
                    if time.monotonic() - looked_at >= LOOK_SECONDS:
                        looked_at = time.monotonic()
                        await self._look_after_engines()
                except RedisError as error:
                    log.warning("the reader of generations lost Redis, trying again", error=str(error))
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception:
                    log.exception("an entry of generations cannot be understood")
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._task = None

    async def _read(self) -> None:
        stream = keys.generate_stream(self._reader)
        for entry_id, fields in await read_after(
            self._blocking, stream, self._last, count=PAGE, block=BLOCK_MILLISECONDS
        ):
            self._last = entry_id
            for request_id, event, data in read_entry(fields):
                mailbox = self._mailboxes.get(request_id)
                if mailbox is not None:
                    mailbox.engine = fields[ENGINE] or mailbox.engine
                    mailbox.put(Event(event, data))

    async def _look_after_engines(self) -> None:
        await self._redis.set(keys.generate_reader(self._reader), "1", ex=keys.GENERATE_READER_SECONDS)
        await self._find_engines()
        names = sorted({mailbox.engine for mailbox in self._mailboxes.values()} - {""})
        await self._redis.xtrim(keys.generate_stream(self._reader), minid=self._last, approximate=True)
        if not names:
            self._missed.clear()
            return
        marks = await self._redis.mget([keys.generate_engine(name) for name in names])
        missing = [name for name, mark in zip(names, marks, strict=True) if mark is None]
        self._missed = {name: self._missed.get(name, 0) + 1 for name in missing}
        for name in missing:
            if self._missed[name] >= MISSES:
                self._lose(name)

    async def _find_engines(self) -> None:
        """An engine may be lost between taking a request and its first word, as while a model loads."""
        silent = {key: its for key, its in self._mailboxes.items() if not its.engine}
        if not silent:
            return
        takers = await self._redis.mget([keys.generate_begun(request_id) for request_id in silent])
        for mailbox, taker in zip(silent.values(), takers, strict=True):
            mailbox.engine = mailbox.engine or str(taker or "")

    def _turn_away(self) -> None:
        error = UnavailableError("the server is stopping; try again", code="stopping")
        for mailbox in list(self._mailboxes.values()):
            mailbox.put(_error_event(error))

    def _lose(self, engine: str) -> None:
        error = UnavailableError("the generator was lost; try again", code="generator_lost")
        lost = [mailbox for mailbox in self._mailboxes.values() if mailbox.engine == engine]
        log.warning("an engine is gone, its clients are told", engine=engine, requests=len(lost))
        for mailbox in lost:
            mailbox.put(_error_event(error))


def _error_event(error: TidalError) -> Event:
    return Event(keys.EVENT_ERROR, json.dumps(error_data(error)))
