"""Sends what requests have committed to Redis at once, in a thread of its own, so that no request waits for Redis.

Doorbells and job-updates lie in the outbox since the commit; the relay of the health process repeats what fails here.
Requests that commit while a pass runs are covered by one more pass.
"""

from __future__ import annotations

import threading

from sqlalchemy import Engine

from common.jobs.outbox import publish_after_commit
from common.redis.publisher import RedisPublisher

CLOSE_SECONDS = 2.0


class OutboxThread:
    """Starts on the first wake-up."""

    def __init__(self, engine: Engine, publisher: RedisPublisher) -> None:
        self._engine = engine
        self._publisher = publisher
        self._requested = threading.Event()
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Something was committed. Returns at once."""
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
                self._thread.start()
        self._requested.set()

    def close(self) -> None:
        """Stop after the pass that runs; what is left goes out through the relay."""
        with self._lock:
            self._closing = True
            thread = self._thread
        self._requested.set()
        if thread is not None:
            thread.join(CLOSE_SECONDS)
        self._publisher.close()

    def _run(self) -> None:
        while True:
            self._requested.wait()
            self._requested.clear()
            if self._closing:
                return
            publish_after_commit(self._engine, self._publisher)
