"""The one writer of token streams: what all requests have to say since the last call goes to Redis in one pipeline.

A thread of its own, so that the engine decodes on while Redis answers; when Redis is slow the batches grow, and when
`BACKLOG` of them wait, the engine does. The same call asks which clients have gone. Without Redis there is nobody to
tell: what could not be sent is dropped, and the api's own deadline answers the client. Leaves out: what the events
mean (`common.jobs.generation_request`).
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from common.logging import get_logger
from common.metrics import keys

log = get_logger(__name__)

BACKLOG = 64
"""Batches that may wait."""
EXPIRY_TOKENS = 32
"""The life of a stream is renewed with every so many tokens, and at its end."""
WATCH_SECONDS = 0.2
"""Between two looks at which clients have gone."""


@dataclass
class Batch:
    """What one step has to say: (request id, event, data); `watched` are the requests whose clients are looked for."""

    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    watched: Iterable[str] = ()


class Emitter:
    """`on_finished` is called with the id of a request once its last event was sent, or given up."""

    def __init__(self, redis: Redis, *, on_finished: Callable[[str], None] = lambda _: None) -> None:
        self._redis = redis
        self._on_finished = on_finished
        self._queue: queue.Queue[Batch | None] = queue.Queue(BACKLOG)
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._looked_at = 0.0
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

    def close(self) -> None:
        """Send what waits, end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batches = [first]
            ending = False
            while not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    ending = True
                    self._queue.task_done()
                    break
                batches.append(more)
            try:
                self._send(batches)
            except RedisError as error:
                log.warning("tokens lost their way to the clients", error=str(error))
            except Exception:
                log.exception("tokens could not be sent")
            for batch in batches:
                for request_id in batch.finished:
                    self._on_finished(request_id)
                self._queue.task_done()
            if ending:
                return
        self._queue.task_done()

    def _send(self, batches: list[Batch]) -> None:
        watched = list(dict.fromkeys(request_id for batch in batches for request_id in batch.watched))
        if watched:
            self._looked_at = time.monotonic()
        with self._redis.pipeline(transaction=False) as pipeline:
            for batch in batches:
                for request_id, event, data in batch.events:
                    stream = keys.generate_stream(request_id)
                    pipeline.xadd(stream, {"event": event, "data": json.dumps(data, ensure_ascii=False)})
                    if event != keys.EVENT_TOKEN or data["index"] % EXPIRY_TOKENS == 0:
                        pipeline.expire(stream, keys.GENERATE_TTL_SECONDS)
            for request_id in watched:
                pipeline.exists(keys.generate_cancelled(request_id))
            answers = pipeline.execute()
        found = answers[len(answers) - len(watched) :]
        gone = {request_id for request_id, present in zip(watched, found, strict=True) if present}
        if gone:
            with self._lock:
                self._gone |= gone
