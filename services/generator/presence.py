"""Holds the engine's own subscription in Redis, which shows api processes that it runs (`common.redis.presence`).

It uses one thread and one connection, and subscribes again after every interruption. Leaves out: detecting api
processes that have ended (`emitter`).
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


class PresenceSubscription:
    """Keeps the channel of `name` subscribed in a background thread until `close`."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._channel = keys.presence(name)
        self._closing = threading.Event()
        self._subscriptions = 0
        self._subscribed = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self._thread.start()

    @property
    def subscription(self) -> int | None:
        """Number of the current subscription, counted from 1; None while there is none."""
        return self._subscriptions if self._subscribed else None

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
                    log.warning("the presence subscription in Redis was interrupted", error=str(error))
                self._subscribed = False
                self._closing.wait(RETRY_SECONDS)

    def _listen(self) -> None:
        with PubSub(self._redis.connection_pool) as pubsub:
            pubsub.subscribe(self._channel)
            while not self._closing.is_set():
                message = pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None and message["type"] == "subscribe":
                    # redis-py also subscribes again when it reconnects by itself.
                    self._subscriptions += 1
                    self._subscribed = True
