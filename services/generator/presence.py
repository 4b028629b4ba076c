"""Holds the engine's own subscription, by which api processes see that it runs (`common.redis.presence`).

One thread and one connection; it subscribes again after every interruption. Leaves out: judging others (`emitter`).
"""

from __future__ import annotations

import threading

from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from common.logging import get_logger
from common.redis import keys

log = get_logger(__name__)

LISTEN_SECONDS = 1.0
RETRY_SECONDS = 0.5


class Presence:
    """Subscribes in the background until `close`."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._channel = keys.presence(name)
        self._closing = threading.Event()
        self._count = 0
        self._subscribed = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self._thread.start()

    @property
    def subscription(self) -> int | None:
        """Number of the current subscription, counted from the start; None while there is none."""
        return self._count if self._subscribed else None

    def close(self) -> None:
        """Unsubscribe and end the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (RedisError, OSError) as error:
                if self._subscribed:
                    log.warning("the presence in Redis was interrupted", error=str(error))
                self._subscribed = False
                self._closing.wait(RETRY_SECONDS)

    def _listen(self) -> None:
        with PubSub(self._redis.connection_pool) as pubsub:
            pubsub.subscribe(self._channel)
            while not self._closing.is_set():
                message = pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None and message["type"] == "subscribe":
                    # Also after a reconnection that redis-py made by itself.
                    self._count += 1
                    self._subscribed = True
