"""Receives the events of the generations that this process requested.

Engines write them to a Redis stream of this process (`common.redis.generation_events`). One task reads the stream and
puts each event into the mailbox of its generation; the task runs while there are mailboxes. If the remaining events of
a generation can no longer arrive, the generation ends with an error within seconds. The reasons are:

* its engine has disconnected (`common.redis.presence`),
* Redis does not answer for `redis_seconds`,
* Redis was emptied or restarted and has lost the request or some of the events.

Each engine numbers its entries in the stream; a gap shows that entries were lost. A request counts as lost if it is
neither in Redis nor marked as begun, and no engine reports that it works on the request. A generation does not fail
when this process, Redis or an engine was idle, suspended or slow for a while: no key in Redis expires during that time,
and time in which this process was suspended does not count. `operations.generate` processes the events and enforces
deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.errors import TidalError, UnavailableError
from common.logging import get_logger
from common.redis import keys
from common.redis.generation_events import ALIVE, ENGINE, NUMBER, error_data, new_reader, new_request_id, read_entry
from common.redis.presence import AbsenceDetector
from services.api.awake import AwakeTimer, within
from services.api.streaming.entries import Fields, read_after
from tidal_client.wire.generation_event import EVENT_ERROR

log = get_logger(__name__)

BLOCK_MILLISECONDS = 1000
"""Longest wait of one XREAD, shorter than the socket timeout of its connection."""
PAGE = 100
"""Maximum number of entries per XREAD. An entry contains the events of one step of an engine."""
CHECK_SECONDS = 1.0
CHECKS_UNTIL_LOST = 3
"""A request counts as lost after this number of consecutive checks that found no trace of it. An engine that works on a
request reports it within a second, even if the mark in Redis was deleted."""
RETRY_SECONDS = 0.25
DRAIN_SECONDS = 3.0
"""Seconds for which running generations may continue when the server stops."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One event of a generation, as an engine sent it; `data` is JSON."""

    name: str
    data: str


class Mailbox:
    """The received events of one generation; only one task may call `take`."""

    def __init__(self) -> None:
        self.engine = ""
        """The engine that works on the request; empty while it is unknown."""
        self.handed_over = False
        """Whether the request has been written to Redis."""
        self.given_up = False
        """Whether this process has ended the generation with an error. The engine may still be generating."""
        self.checks_without_trace = 0
        """Number of consecutive checks that found no trace of the request."""
        self._ready: list[EngineEvent] = []
        self._arrived = asyncio.Event()

    def put(self, event: EngineEvent) -> None:
        """Add an event, unless this process has ended the generation."""
        if not self.given_up:
            self._ready.append(event)
            self._arrived.set()

    def fail(self, error: TidalError) -> None:
        """End the generation with an error that this process reports."""
        self.put(EngineEvent(EVENT_ERROR, json.dumps(error_data(error))))
        self.given_up = True

    async def take(self, seconds: float) -> list[EngineEvent]:
        """Remove and return all events.

        If there are none, wait up to `seconds` for one; return an empty list if none arrives.
        """
        if not self._ready:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
        ready, self._ready = self._ready, []
        self._arrived.clear()
        return ready


class Generations:
    """The running generations of one app."""

    def __init__(self, redis: Redis, blocking: Redis, *, redis_seconds: float) -> None:
        """`redis_seconds`: all generations end with 503 when Redis has not answered for this time."""
        self.enqueuing = 0
        """Number of requests that are being enqueued, which the length of the queue in Redis does not include yet."""
        self.redis_seconds = redis_seconds
        self._reader = new_reader()
        self._redis = redis
        self._blocking = blocking
        self._mailboxes: dict[str, Mailbox] = {}
        self._absences = AbsenceDetector(CHECK_SECONDS)
        self._last_numbers: dict[str, int] = {}
        """Maps each engine to the number of its last entry."""
        self._pending_cancellations: dict[str, float] = {}
        """Maps the id of a request whose cancellation could not be written to Redis to the monotonic time until which
        to retry."""
        self._last_id = "0-0"
        self._reading: asyncio.Task[None] | None = None
        self._presence: asyncio.Task[None] | None = None
        self._subscription = 0
        self._subscribed = False

    def new_id(self) -> str:
        """Return an id for a request whose events this process will receive."""
        return new_request_id(self._reader)

    @contextmanager
    def follow(self, request_id: str) -> Iterator[Mailbox]:
        """Yield a mailbox for the events of the request `request_id`, an id that `new_id` has returned.

        The caller sets `handed_over` after it has written the request to Redis.
        """
        mailbox = self._mailboxes[request_id] = Mailbox()
        self._start()
        try:
            yield mailbox
        finally:
            del self._mailboxes[request_id]

    async def cancel(self, request_id: str) -> None:
        """Request that the engine stops the generation.

        If Redis does not answer, the task that reads the stream tries the cancellation again later.
        """
        try:
            await within(2.0, self._cancel([request_id]))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("could not cancel a generation, retrying", request=request_id, error=str(error))
            self._pending_cancellations[request_id] = time.monotonic() + keys.GENERATE_TTL_SECONDS
            self._start()

    def drain(self) -> None:
        """After DRAIN_SECONDS, end all unfinished generations with an error, because the server stops."""
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._fail_pending)

    async def close(self) -> None:
        """Stop the task that reads the stream and the task that holds the presence subscription."""
        for task in (self._reading, self._presence):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _start(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._run(), name="reader of generations")
        if self._presence is None:
            self._presence = asyncio.create_task(self._hold_presence(), name="presence")

    async def _hold_presence(self) -> None:
        """Hold the subscription by which other processes see that this process is alive."""
        while True:
            try:
                async with self._blocking.pubsub() as pubsub:
                    await pubsub.subscribe(keys.presence(self._reader))
                    while True:
                        message = await pubsub.get_message(timeout=CHECK_SECONDS)
                        if message is not None and message["type"] == "subscribe":
                            self._subscription += 1
                            self._subscribed = True
            except (RedisError, OSError) as error:
                if self._subscribed:
                    log.warning("lost the presence subscription in Redis, retrying", error=str(error))
                self._subscribed = False
                await asyncio.sleep(RETRY_SECONDS)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        # One lap of this timer counts for at most the duration of one XREAD, because during a longer lap this process
        # may have been suspended. After a timeout of `within`, which does not count suspensions, the code below adds
        # the whole `patience`.
        unavailable = AwakeTimer(BLOCK_MILLISECONDS / 1000)
        checked_at = clock()
        redis_answers = True
        try:
            while self._mailboxes or self._pending_cancellations:
                patience = max(self.redis_seconds - unavailable.seconds, BLOCK_MILLISECONDS / 1000 + 0.5)
                try:
                    for entry_id, fields in await within(patience, self._fetch()):
                        self._last_id = entry_id
                        self._deliver(fields)
                    if clock() - checked_at >= CHECK_SECONDS:
                        await within(patience, self._check())
                        checked_at = clock()
                    if not redis_answers:
                        log.info("generation reader reconnected to Redis")
                    redis_answers = True
                    unavailable.restart()
                except (RedisError, OSError) as error:  # OSError includes the TimeoutError of `within`
                    if redis_answers:
                        log.warning("generation reader cannot reach Redis, retrying", error=str(error))
                    redis_answers = False
                    if isinstance(error, TimeoutError):
                        unavailable.seconds += patience
                    if unavailable.lap() >= self.redis_seconds:
                        self._fail_all_for_redis()
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception:
                    log.exception("generation reader failed to process an entry")
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._reading = None

    async def _fetch(self) -> list[tuple[str, Fields]]:
        stream = keys.generate_stream(self._reader)
        return await read_after(self._blocking, stream, self._last_id, count=PAGE, block=BLOCK_MILLISECONDS)

    def _deliver(self, fields: Fields) -> None:
        engine = fields[ENGINE]
        if NUMBER in fields and not self._accept(engine, int(fields[NUMBER]), beacon=ALIVE in fields):
            return
        for request_id in fields.get(ALIVE, "").split():
            mailbox = self._mailboxes.get(request_id)
            if mailbox is not None:
                mailbox.engine = engine
        for request_id, event, data in read_entry(fields):
            mailbox = self._mailboxes.get(request_id)
            if mailbox is not None:
                mailbox.engine = engine or mailbox.engine
                mailbox.put(EngineEvent(event, data))

    def _accept(self, engine: str, number: int, *, beacon: bool) -> bool:
        """Return whether an entry is new.

        If earlier entries of the engine were lost, end the engine's generations with an error. A beacon, which only
        names the requests that the engine works on, has the same number as the entry before the beacon; every other
        entry has the next number.
        """
        last = self._last_numbers.get(engine, 0)
        if number <= last and not beacon:
            return False  # the engine sent it twice, because it got no reply from Redis at first
        self._last_numbers[engine] = max(number, last)
        if number > last + (not beacon):
            # Requests whose engine is not known yet end as well, because the lost entries may belong to them.
            lost = [mailbox for mailbox in self._mailboxes.values() if mailbox.engine in (engine, "")]
            log.warning("Redis has lost entries of an engine", engine=engine, entries=number - last, requests=len(lost))
            self._fail(lost, _answer_lost())
        return True

    async def _check(self) -> None:
        """Trim the stream, retry cancellations, and check that the engines and the requests still exist."""
        await self._redis.xtrim(keys.generate_stream(self._reader), minid=self._last_id, approximate=True)
        if self._pending_cancellations:
            now = time.monotonic()
            await self._cancel([request_id for request_id, end in self._pending_cancellations.items() if end > now])
            self._pending_cancellations.clear()
        await self._check_requests()
        engines = sorted({mailbox.engine for mailbox in self._mailboxes.values()} - {""})
        if not engines:
            return
        subscription = self._subscription
        counts: list[Any] = await self._redis.pubsub_numsub(*map(keys.presence, engines))
        present = {engine: count > 0 for engine, (_, count) in zip(engines, counts, strict=True)}
        same = subscription if self._subscribed and subscription == self._subscription else None
        for engine in self._absences.record_check(present, same, time.monotonic()):
            lost = [mailbox for mailbox in self._mailboxes.values() if mailbox.engine == engine]
            log.warning("an engine disconnected, ending its generations", engine=engine, requests=len(lost))
            self._fail(lost, UnavailableError("the generator was lost; try again", code="generator_lost"))

    async def _check_requests(self) -> None:
        """Find out whether the requests whose engine is unknown still exist.

        A request exists if it is in Redis, or if an engine has marked it as begun. A request that is not found in
        CHECKS_UNTIL_LOST consecutive checks is lost.
        """
        silent = {
            key: mailbox for key, mailbox in self._mailboxes.items() if mailbox.handed_over and not mailbox.engine
        }
        if not silent:
            return
        async with self._redis.pipeline(transaction=True) as pipeline:
            for request_id in silent:
                pipeline.get(keys.generate_begun(request_id))
                pipeline.exists(keys.generate_request(request_id))
            answers = await pipeline.execute()
        for mailbox, begun, waiting in zip(silent.values(), answers[::2], answers[1::2], strict=True):
            mailbox.engine = mailbox.engine or str(begun or "")
            mailbox.checks_without_trace = 0 if waiting or begun is not None else mailbox.checks_without_trace + 1
        lost = [mailbox for mailbox in silent.values() if mailbox.checks_without_trace >= CHECKS_UNTIL_LOST]
        if lost:
            log.warning("Redis has lost requests for the generator", requests=len(lost))
            self._fail(lost, _answer_lost())

    async def _cancel(self, request_ids: Iterable[str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for request_id in request_ids:
                pipeline.set(keys.generate_cancelled(request_id), "1", ex=keys.GENERATE_TTL_SECONDS)
                pipeline.delete(keys.generate_request(request_id))
            await pipeline.execute()

    def _fail_all_for_redis(self) -> None:
        message = f"Redis did not answer for {math.ceil(self.redis_seconds)} s, so the generation was ended; try again"
        self._fail(list(self._mailboxes.values()), UnavailableError(message, code="redis_unavailable"))

    def _fail_pending(self) -> None:
        error = UnavailableError("the server is stopping; try again", code="stopping")
        self._fail(list(self._mailboxes.values()), error)

    def _fail(self, mailboxes: Iterable[Mailbox], error: TidalError) -> None:
        for mailbox in mailboxes:
            mailbox.fail(error)


def _answer_lost() -> UnavailableError:
    return UnavailableError("Redis was restarted and has lost a part of the reply; try again", code="answer_lost")
