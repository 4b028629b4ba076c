"""The one writer of tokens: what all requests have to say since the last call goes to Redis as one entry per reader.

A thread of its own, so that the engine decodes on while Redis answers; when Redis is slow the entries grow, and when
`BACKLOG` batches wait, the engine does. The same call asks which clients have gone, and says that this engine lives.
Without Redis there is nobody to tell: what could not be sent is dropped, and the api's own deadline answers the client.
Leaves out: what the events mean (`common.jobs.generation_request`).
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from common.errors import TidalError
from common.jobs.generation_events import MAX_ENTRIES, Said, by_stream, entry, error_data, said, said_in_pieces
from common.logging import get_logger
from common.metrics import keys
from services.generator.readers import Readers

log = get_logger(__name__)

BACKLOG = 64
"""Batches that may wait."""
ALIVE_SECONDS = 1.0
"""Between two marks that this engine lives."""
WATCH_SECONDS = 0.2
"""Between two looks at which clients have gone."""


@dataclass(frozen=True)
class End:
    """The last event of a request, made on the way: not by the thread that decodes, a `large` one by none that others
    wait for."""

    request_id: str
    event: Callable[[], tuple[str, dict[str, Any]]]
    large: bool = False

    def said(self) -> Said:
        """The event, encoded; an error where it cannot be made."""
        try:
            return (said_in_pieces if self.large else said)(self.request_id, *self.event())
        except Exception:
            log.exception("a reply cannot be told", request_id=self.request_id)
            error = TidalError("generation failed inside the server; its log has the details", code="internal")
            return said(self.request_id, keys.EVENT_ERROR, error_data(error))


@dataclass
class Batch:
    """What one step has to say: (request id, event, data), then what `ends`; `encoded` was made ready before. `watched`
    are the requests whose clients are looked for."""

    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    encoded: list[Said] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    watched: Iterable[str] = ()


class Emitter:
    """`on_finished` is called with the id of a request once its last event was sent, or given up. `name` is that of
    the engine, in every entry it writes."""

    def __init__(self, redis: Redis, *, on_finished: Callable[[str], None] = lambda _: None) -> None:
        self.name = f"engine-{secrets.token_hex(6)}"
        self._redis = redis
        self._on_finished = on_finished
        self._queue: queue.Queue[Batch | None] = queue.Queue(BACKLOG)
        self._queue.put(Batch())  # brings the first mark, before any request is taken
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._readers = Readers()
        self._looked_at = 0.0
        self._marked_at = 0.0
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._encoding: set[Future[None]] = set()
        self._thread = threading.Thread(target=self._run, name="emitter", daemon=True)
        self._thread.start()

    def send(self, batch: Batch) -> None:
        """Hand over what is to be sent; blocks while too much waits."""
        self._queue.put(batch)

    def look_due(self) -> bool:
        """Whether it is time to look for clients that have gone."""
        return time.monotonic() - self._looked_at >= WATCH_SECONDS

    def take_gone(self) -> set[str]:
        """The requests whose clients were found to have gone since the last call."""
        with self._lock:
            gone, self._gone = self._gone, set()
        return gone

    def drain(self) -> None:
        """Wait until everything handed over was sent."""
        self._queue.join()
        while encoding := list(self._encoding):
            wait(encoding)
            self._queue.join()

    def close(self) -> None:
        """Send what waits, end the threads."""
        self.drain()
        self._encoder.shutdown()
        self._queue.put(None)
        self._thread.join()

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
            try:
                self._send(batches)
            except RedisError as error:
                (log.warning if batches else log.debug)("tokens lost their way to the clients", error=str(error))
            except Exception:
                log.exception("tokens could not be sent")
            for batch in batches:
                for request_id in [*(end.request_id for end in batch.ends), *batch.finished]:
                    self._on_finished(request_id)
                self._queue.task_done()
        self._queue.task_done()

    def _encode_large(self, batch: Batch) -> None:
        """Large ends come back as batches of their own, encoded: tokens and the mark do not wait for them."""

        def encode(end: End) -> None:
            self._queue.put(Batch(encoded=[end.said()], finished=[end.request_id]))

        large = [end for end in batch.ends if end.large]
        batch.ends = [end for end in batch.ends if not end.large]
        for end in large:
            encoding = self._encoder.submit(encode, end)
            self._encoding.add(encoding)
            encoding.add_done_callback(self._encoding.discard)

    def _taken(self) -> list[Batch | None]:
        """All that waits, up to the end; nothing when it is only time to say that the engine lives."""
        try:
            taken = [self._queue.get(timeout=ALIVE_SECONDS)]
        except queue.Empty:
            return []
        while taken[-1] is not None and not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def _send(self, batches: list[Batch]) -> None:
        watched = list(dict.fromkeys(request_id for batch in batches for request_id in batch.watched))
        now = time.monotonic()
        readers = self._readers.due(watched, now)
        with self._redis.pipeline(transaction=False) as pipeline:
            if now - self._marked_at >= ALIVE_SECONDS:
                pipeline.set(keys.generate_engine(self.name), "1", ex=keys.GENERATE_ENGINE_SECONDS)
                self._marked_at = now
            for stream, events in by_stream(_all_said(batches)).items():
                pipeline.xadd(stream, entry(self.name, events), maxlen=MAX_ENTRIES)
                pipeline.expire(stream, keys.GENERATE_TTL_SECONDS)
            if watched:
                self._looked_at = now
                pipeline.mget([keys.generate_cancelled(request_id) for request_id in watched])
            if readers:
                pipeline.mget([keys.generate_reader(reader) for reader in readers])
            answers = pipeline.execute()
        if not watched:
            return
        left = self._readers.gone(readers, answers.pop(), now) if readers else set()
        marks = zip(watched, answers[-1], strict=True)
        gone = {its for its, mark in marks if mark is not None or its.partition(".")[0] in left}
        if gone:
            with self._lock:
                self._gone |= gone


def _all_said(batches: Iterable[Batch]) -> Iterator[Said]:
    """In order: a request's end comes after its tokens."""
    for batch in batches:
        yield from (said(*event) for event in batch.events)
        yield from (end.said() for end in batch.ends)
        yield from batch.encoded
