"""The one writer of tokens: what all requests have to say since the last call goes to Redis as one entry per reader.

A thread of its own, so that the engine decodes on while Redis answers; when Redis is slow the entries grow, and when
`BACKLOG` batches wait, the engine does. The same call asks which clients have disconnected and which api processes
have died, and once a second sends each reader a beacon. While Redis does not answer, an entry is sent again for
`RESEND_SECONDS` and then dropped: by then the api has answered its clients with an error. Readers recognise repeated
and lost entries by their numbers (`common.redis.generation_events`). Leaves out: what the events mean
(`tidal_client.wire.generation_event`).
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError
from redis.typing import EncodableT, FieldT

from common.errors import TidalError
from common.logging import get_logger
from common.redis import keys
from common.redis.generation_events import (
    MAX_ENTRIES,
    Said,
    beacon,
    by_stream,
    entry,
    error_data,
    said,
    said_in_pieces,
)
from common.redis.presence import Absences
from services.generator.presence import Presence
from tidal_client.wire.generation_event import EVENT_ERROR, GenerationEvent

log = get_logger(__name__)

BACKLOG = 64
"""Batches that may wait."""
BEACON_SECONDS = 1.0
"""Between two beacons."""
BEACONS_AFTER_SECONDS = 10.0
"""A reader gets beacons for so long after its last entry, so that it learns of one that was lost."""
RESEND_SECONDS = 5.0
"""An entry is sent again for so long while Redis does not answer."""
RETRY_SECONDS = 0.2
WATCH_SECONDS = 0.2
"""Between two looks at which clients have gone."""


@dataclass(frozen=True)
class End:
    """The last event of a request, made on the way: not by the thread that decodes, a `large` one by none that others
    wait for."""

    request_id: str
    event: Callable[[], tuple[str, GenerationEvent]]
    large: bool = False

    def said(self) -> Said:
        """The event, encoded; an error where it cannot be made."""
        try:
            return (said_in_pieces if self.large else said)(self.request_id, *self.event())
        except Exception:
            log.exception("a reply cannot be told", request_id=self.request_id)
            error = TidalError("generation failed inside the server; its log has the details", code="internal")
            return said(self.request_id, EVENT_ERROR, error_data(error))


@dataclass
class Batch:
    """What one step has to say: (request id, event, data), then what `ends`; `encoded` was made ready before. `watched`
    are all requests that the engine has, whose clients are looked for."""

    events: list[tuple[str, str, GenerationEvent]] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    encoded: list[Said] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    watched: Iterable[str] = ()


Entry = tuple[str, dict[FieldT, EncodableT]]
"""A stream and the fields of an entry for it."""


class Emitter:
    """`on_finished` is called with the id of a request once its last event was sent, or given up. `name` is that of
    the engine, in every entry it writes. An api process that is gone is looked for every `presence_seconds`."""

    def __init__(
        self, redis: Redis, *, presence_seconds: float, on_finished: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name = f"engine-{secrets.token_hex(6)}"
        self._redis = redis
        self._on_finished = on_finished
        self._queue: queue.Queue[Batch | None] = queue.Queue(BACKLOG)
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._presence = Presence(redis, self.name)
        self._absences = Absences(presence_seconds)
        self._looked_at = 0.0
        self._beacons_at = 0.0
        self._alive: set[str] = set()
        """The requests that the engine has, for the beacons."""
        self._numbers: dict[str, int] = {}
        """Entries so far, by reader. Never forgotten: a number that began anew would look like a repetition."""
        self._sent_at: dict[str, float] = {}
        """When each reader that gets beacons was sent its last entry."""
        self._closing = threading.Event()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._encoding: set[Future[None]] = set()
        self._thread = threading.Thread(target=self._run, name="emitter", daemon=True)
        self._thread.start()

    def send(self, batch: Batch) -> None:
        """Hand over what is to be sent; blocks while too much waits."""
        self._queue.put(batch)

    def look_due(self) -> bool:
        """Whether it is time to look for clients that have disconnected."""
        return time.monotonic() - self._looked_at >= WATCH_SECONDS

    def take_gone(self) -> set[str]:
        """The requests whose clients were found to have disconnected since the last call."""
        with self._lock:
            gone, self._gone = self._gone, set()
        return gone

    def drain(self) -> None:
        """Wait until everything handed over was sent, or given up."""
        self._queue.join()
        while encoding := list(self._encoding):
            wait(encoding)
            self._queue.join()

    def close(self) -> None:
        """Send what waits, if Redis answers, and end the threads."""
        self._closing.set()
        self.drain()
        self._encoder.shutdown()
        self._queue.put(None)
        self._thread.join()
        self._presence.close()

    def _run(self) -> None:
        ending = False
        while not ending:
            batches = []
            for batch in self._taken():
                if batch is None:
                    ending = True
                else:
                    self._encode_large(batch)
                    batches.append(batch)
            ended = [name for batch in batches for name in [*(end.request_id for end in batch.ends), *batch.finished]]
            try:
                self._deliver(batches, ended)
            except Exception:
                log.exception("tokens could not be sent")
            for request_id in ended:
                self._on_finished(request_id)
            for _ in batches:
                self._queue.task_done()
        self._queue.task_done()

    def _encode_large(self, batch: Batch) -> None:
        """Large ends come back as batches of their own, encoded: tokens and beacons do not wait for them."""

        def encode(end: End) -> None:
            self._queue.put(Batch(encoded=[end.said()], finished=[end.request_id]))

        large = [end for end in batch.ends if end.large]
        batch.ends = [end for end in batch.ends if not end.large]
        for end in large:
            encoding = self._encoder.submit(encode, end)
            self._encoding.add(encoding)
            encoding.add_done_callback(self._encoding.discard)

    def _taken(self) -> list[Batch | None]:
        """All that waits, up to the end; nothing when it is only time for beacons."""
        try:
            taken = [self._queue.get(timeout=BEACON_SECONDS)]
        except queue.Empty:
            return []
        while taken[-1] is not None and not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def _deliver(self, batches: list[Batch], ended: list[str]) -> None:
        """Send these batches, again and again while Redis does not answer."""
        watched = list(dict.fromkeys(request_id for batch in batches for request_id in batch.watched))
        self._alive = (self._alive | set(watched)) - set(ended)
        entries = self._entries(batches)
        until = time.monotonic() + RESEND_SECONDS
        while True:
            try:
                self._send(entries, watched)
            except RedisError as error:
                if not entries:
                    log.debug("no beacon could be sent", error=str(error))
                    return
                if time.monotonic() >= until or self._closing.is_set():
                    log.warning("tokens did not reach Redis and are dropped", error=str(error), entries=len(entries))
                    return
                self._closing.wait(RETRY_SECONDS)
            else:
                return

    def _entries(self, batches: list[Batch]) -> list[Entry]:
        """An entry for each stream, numbered once, however often it is sent."""
        entries = []
        for stream, events in by_stream(_all_said(batches)).items():
            reader = _reader(events[0].request_id)
            self._numbers[reader] = number = self._numbers.get(reader, 0) + 1
            self._sent_at[reader] = time.monotonic()
            entries.append((stream, entry(self.name, events, number)))
        return entries

    def _beacons(self, now: float) -> list[Entry]:
        alive: dict[str, list[str]] = {}
        for request_id in self._alive:
            alive.setdefault(_reader(request_id), []).append(request_id)
        self._sent_at = {its: at for its, at in self._sent_at.items() if now - at < BEACONS_AFTER_SECONDS}
        return [
            (keys.generate_stream(reader), beacon(self.name, alive.get(reader, []), self._numbers.get(reader, 0)))
            for reader in sorted(alive.keys() | self._sent_at.keys())
        ]

    def _send(self, entries: list[Entry], watched: list[str]) -> None:
        now = time.monotonic()
        beacons_due = now - self._beacons_at >= BEACON_SECONDS
        readers = sorted({_reader(request_id) for request_id in watched})
        subscription = self._presence.subscription
        look = self._absences.due(readers, now)
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, fields in [*entries, *(self._beacons(now) if beacons_due else [])]:
                pipeline.xadd(stream, fields, maxlen=MAX_ENTRIES)
                pipeline.expire(stream, keys.GENERATE_STREAM_SECONDS)
            if watched:
                pipeline.mget([keys.generate_cancelled(request_id) for request_id in watched])
            if look:
                pipeline.pubsub_numsub(*map(keys.presence, readers))
            answers = pipeline.execute()
        if beacons_due:
            self._beacons_at = now
        if not watched:
            return
        self._looked_at = now
        left: set[str] = set()
        if look:
            present = {reader: count > 0 for reader, (_, count) in zip(readers, answers.pop(), strict=True)}
            # What interrupted our subscription meanwhile may have ended those of others too.
            same = subscription if self._presence.subscription == subscription else None
            left = self._absences.look(present, same, now)
            if left:
                log.warning("api processes are gone, their texts end", readers=sorted(left))
        marks = zip(watched, answers[-1], strict=True)
        gone = {its for its, mark in marks if mark is not None or _reader(its) in left}
        if gone:
            with self._lock:
                self._gone |= gone


def _reader(request_id: str) -> str:
    return request_id.partition(".")[0]


def _all_said(batches: Iterable[Batch]) -> Iterator[Said]:
    """In order: a request's end comes after its tokens."""
    for batch in batches:
        yield from (said(*event) for event in batch.events)
        yield from (end.said() for end in batch.ends)
        yield from batch.encoded
