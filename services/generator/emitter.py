"""Sends the events of all requests to Redis.

An api process is called a reader here. Each reader has its own stream in Redis. The emitter sends in its own thread, so
that the engine continues to decode while the emitter waits for Redis. Each call to Redis sends all queued events, in
one stream entry per reader. If Redis is slow, more events are queued between two calls, and the entries become larger.
When `BACKLOG` batches are queued, the engine waits. The same call to Redis checks which clients have disconnected and
which api processes have ended. Once a second the emitter also sends a beacon to each reader: an entry without events. A
beacon lists the active requests of the reader and contains the number of the newest entry for the reader. From this
number the reader can detect that an entry was lost.

While Redis does not answer, the emitter repeats the call for `RESEND_SECONDS`. Then it drops the entries, because by
then the api has answered its clients with an error. Every entry has a number, by which readers detect repeated and lost
entries (`common.redis.generation_events`). The events are defined in `tidal_client.wire.generation_event`.
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
    EncodedEvent,
    beacon,
    by_stream,
    encode_generation_event,
    encode_large_generation_event,
    entry,
    error_data,
)
from common.redis.presence import AbsenceDetector
from services.generator.presence import PresenceSubscription
from tidal_client.wire.generation_event import EVENT_ERROR, GenerationEvent

log = get_logger(__name__)

BACKLOG = 64
"""Maximum number of event batches in the emitter's queue."""
BEACON_SECONDS = 1.0
"""Seconds between two beacons."""
BEACONS_AFTER_SECONDS = 10.0
"""Time in seconds for which a reader still receives beacons after its last entry.

From a beacon the reader detects that its last entry was lost.
"""
RESEND_SECONDS = 5.0
"""Time in seconds for which the emitter tries to send an entry while Redis does not answer."""
RETRY_SECONDS = 0.2
"""Delay in seconds between two attempts to send an entry while Redis does not answer."""
WATCH_SECONDS = 0.2
"""Seconds between two checks for disconnected clients."""


@dataclass(frozen=True)
class FinalEvent:
    """The last event of a request.

    `event` builds the event. The emitter's thread calls `event`, so that the decoding thread does not have to. If
    `large` is true, another thread calls `event`, so that the events of other requests do not wait for it.
    """

    request_id: str
    event: Callable[[], tuple[str, GenerationEvent]]
    large: bool = False

    def encode(self) -> EncodedEvent:
        """Return the encoded event, or an encoded error event if `event` fails."""
        try:
            return (encode_large_generation_event if self.large else encode_generation_event)(
                self.request_id, *self.event()
            )
        except Exception:
            log.exception("the last event of a request could not be built", request_id=self.request_id)
            error = TidalError("generation failed inside the server; its log has the details", code="internal")
            return encode_generation_event(self.request_id, EVENT_ERROR, error_data(error))


@dataclass
class EventBatch:
    """The events of one engine step. They are sent in the order `events`, `ends`, `encoded`."""

    events: list[tuple[str, str, GenerationEvent]] = field(default_factory=list)
    """Events as tuples (request id, event name, data)."""
    ends: list[FinalEvent] = field(default_factory=list)
    encoded: list[EncodedEvent] = field(default_factory=list)
    """Events that are already encoded for Redis."""
    finished: list[str] = field(default_factory=list)
    """Ids of the requests that end with this batch but have no entry in `ends`."""
    watched: Iterable[str] = ()
    """Ids of all requests of the engine if it is time to check whether their clients are connected; otherwise empty."""


Entry = tuple[str, dict[FieldT, EncodableT]]
"""The key of a stream in Redis, and the fields of one entry for it."""


class Emitter:
    """Sends queued event batches to Redis in a background thread.

    After the last event of a request was sent or dropped, the emitter calls `on_finished` with the id of the request.
    `name` identifies the engine in every entry. `presence_seconds` is the time between two checks for api processes
    that have ended.
    """

    def __init__(
        self, redis: Redis, *, presence_seconds: float, on_finished: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name = f"engine-{secrets.token_hex(6)}"
        self._redis = redis
        self._on_finished = on_finished
        self._queue: queue.Queue[EventBatch | None] = queue.Queue(BACKLOG)
        self._disconnected: set[str] = set()
        self._lock = threading.Lock()
        self._presence = PresenceSubscription(redis, self.name)
        self._absences = AbsenceDetector(presence_seconds)
        self._clients_checked_at = 0.0
        self._beacons_at = 0.0
        self._running_requests: set[str] = set()
        """Ids of the requests of the engine; beacons list them."""
        self._entry_numbers: dict[str, int] = {}
        """{reader: number of its newest entry}.

        A reader is never removed from this mapping. Otherwise its numbers would begin again at 1, and it would ignore
        them as repeated.
        """
        self._sent_at: dict[str, float] = {}
        """{reader: time of its last entry}, only for the readers that receive beacons."""
        self._closing = threading.Event()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._encoding: set[Future[None]] = set()
        self._thread = threading.Thread(target=self._run, name="emitter", daemon=True)
        self._thread.start()

    def send(self, batch: EventBatch) -> None:
        """Add a batch to the queue; block while the queue contains `BACKLOG` batches."""
        self._queue.put(batch)

    def client_check_due(self) -> bool:
        """Return whether it is time to check for disconnected clients."""
        return time.monotonic() - self._clients_checked_at >= WATCH_SECONDS

    def take_disconnected(self) -> set[str]:
        """Return the ids of the requests whose clients were found to be disconnected since the last call."""
        with self._lock:
            disconnected, self._disconnected = self._disconnected, set()
        return disconnected

    def drain(self) -> None:
        """Block until every queued batch has been sent or dropped."""
        self._queue.join()
        while encoding := list(self._encoding):
            wait(encoding)
            self._queue.join()

    def close(self) -> None:
        """Send the queued batches if Redis answers, otherwise drop them; then end the threads."""
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
            for batch in self._take_queued():
                if batch is None:
                    ending = True
                else:
                    self._encode_large(batch)
                    batches.append(batch)
            ended = [name for batch in batches for name in [*(end.request_id for end in batch.ends), *batch.finished]]
            try:
                self._deliver(batches, ended)
            except Exception:
                log.exception("events could not be sent")
            for request_id in ended:
                self._on_finished(request_id)
            for _ in batches:
                self._queue.task_done()
        self._queue.task_done()

    def _encode_large(self, batch: EventBatch) -> None:
        """Encode the large last events of `batch` in a separate thread, which queues each of them as a batch.

        The emitter's own thread continues to send tokens and beacons while a large event is encoded.
        """

        def encode(end: FinalEvent) -> None:
            self._queue.put(EventBatch(encoded=[end.encode()], finished=[end.request_id]))

        large = [end for end in batch.ends if end.large]
        batch.ends = [end for end in batch.ends if not end.large]
        for end in large:
            encoding = self._encoder.submit(encode, end)
            self._encoding.add(encoding)
            encoding.add_done_callback(self._encoding.discard)

    def _take_queued(self) -> list[EventBatch | None]:
        """Return all queued batches. None as the last element means that the thread has to end.

        If no batch arrives within `BEACON_SECONDS`, return an empty list, so that beacons can be sent.
        """
        try:
            taken = [self._queue.get(timeout=BEACON_SECONDS)]
        except queue.Empty:
            return []
        while taken[-1] is not None and not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def _deliver(self, batches: list[EventBatch], ended: list[str]) -> None:
        """Send the events of `batches`; repeat this for up to `RESEND_SECONDS` while Redis does not answer."""
        watched = list(dict.fromkeys(request_id for batch in batches for request_id in batch.watched))
        self._running_requests = (self._running_requests | set(watched)) - set(ended)
        entries = self._new_entries(batches)
        until = time.monotonic() + RESEND_SECONDS
        while True:
            try:
                self._send(entries, watched)
            except RedisError as error:
                if not entries:
                    log.debug("beacons could not be sent", error=str(error))
                    return
                if time.monotonic() >= until or self._closing.is_set():
                    log.warning(
                        "events were dropped because Redis does not answer", error=str(error), entries=len(entries)
                    )
                    return
                self._closing.wait(RETRY_SECONDS)
            else:
                return

    def _new_entries(self, batches: list[EventBatch]) -> list[Entry]:
        """Return one numbered entry for each stream that has events in `batches`."""
        entries = []
        for stream, events in by_stream(_encoded_events(batches)).items():
            reader = _reader_id(events[0].request_id)
            self._entry_numbers[reader] = number = self._entry_numbers.get(reader, 0) + 1
            self._sent_at[reader] = time.monotonic()
            entries.append((stream, entry(self.name, events, number)))
        return entries

    def _new_beacons(self, now: float) -> list[Entry]:
        alive: dict[str, list[str]] = {}
        for request_id in self._running_requests:
            alive.setdefault(_reader_id(request_id), []).append(request_id)
        self._sent_at = {reader: at for reader, at in self._sent_at.items() if now - at < BEACONS_AFTER_SECONDS}
        return [
            (keys.generate_stream(reader), beacon(self.name, alive.get(reader, []), self._entry_numbers.get(reader, 0)))
            for reader in sorted(alive.keys() | self._sent_at.keys())
        ]

    def _send(self, entries: list[Entry], watched: list[str]) -> None:
        now = time.monotonic()
        beacons_due = now - self._beacons_at >= BEACON_SECONDS
        readers = sorted({_reader_id(request_id) for request_id in watched})
        subscription = self._presence.subscription
        check_presence = self._absences.due(readers, now)
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, fields in [*entries, *(self._new_beacons(now) if beacons_due else [])]:
                pipeline.xadd(stream, fields, maxlen=MAX_ENTRIES)
                pipeline.expire(stream, keys.GENERATE_STREAM_SECONDS)
            if watched:
                pipeline.mget([keys.generate_cancelled(request_id) for request_id in watched])
            if check_presence:
                pipeline.pubsub_numsub(*map(keys.presence, readers))
            answers = pipeline.execute()
        if beacons_due:
            self._beacons_at = now
        if not watched:
            return
        self._clients_checked_at = now
        ended_readers: set[str] = set()
        if check_presence:
            present = {reader: count > 0 for reader, (_, count) in zip(readers, answers.pop(), strict=True)}
            # If this engine's own subscription was interrupted, the subscriptions of the readers may have been
            # interrupted at the same time. In that case, this check proves nothing about the readers.
            unchanged = subscription if self._presence.subscription == subscription else None
            ended_readers = self._absences.record_check(present, unchanged, now)
            if ended_readers:
                log.warning("api processes have ended; their requests are cancelled", readers=sorted(ended_readers))
        marks = zip(watched, answers[-1], strict=True)
        disconnected = {
            request_id for request_id, mark in marks if mark is not None or _reader_id(request_id) in ended_readers
        }
        if disconnected:
            with self._lock:
                self._disconnected |= disconnected


def _reader_id(request_id: str) -> str:
    return request_id.partition(".")[0]


def _encoded_events(batches: Iterable[EventBatch]) -> Iterator[EncodedEvent]:
    """Yield the encoded events so that the last event of a request follows its tokens."""
    for batch in batches:
        yield from (encode_generation_event(*event) for event in batch.events)
        yield from (end.encode() for end in batch.ends)
        yield from batch.encoded
