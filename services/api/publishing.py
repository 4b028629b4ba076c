"""Publishes outbox messages to Redis directly after a commit, in a thread, so that no request waits for Redis.

A request writes notifications and job updates to the outbox in its transaction. Messages that this thread cannot
publish are published by the relay in the health process. If requests commit while the thread publishes, the thread
publishes once more afterwards.
"""

from __future__ import annotations

import threading

from sqlalchemy import Engine

from common.jobs.outbox import publish_after_commit
from common.redis.publisher import RedisPublisher

CLOSE_SECONDS = 2.0


class OutboxThread:
    """The publishing thread. The first call of `wake` starts it."""

    def __init__(self, engine: Engine, publisher: RedisPublisher) -> None:
        self._engine = engine
        self._publisher = publisher
        self._requested = threading.Event()
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Make the thread publish the outbox, because a request has committed messages. Returns at once."""
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
                self._thread.start()
        self._requested.set()

    def close(self) -> None:
        """Stop after the messages that are being published; the relay publishes the remaining ones."""
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
