"""The engine's subscription in Redis, by which api processes recognise that the engine is running.

`common.redis.presence` explains the method. The subscription uses one thread and one connection, and is renewed after
every interruption. The opposite direction, detecting api processes that have ended, is in `services.generator.emitter`.
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
    """Subscribes to the channel of `name` in a background thread until `close` is called."""

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
        """Number of the current subscription, counted from 1; None while the engine is not subscribed."""
        return self._subscriptions if self._subscribed else None

    def close(self) -> None:
        """Unsubscribe and end the background thread."""
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
                    # A message "subscribe" also arrives when redis-py reconnects and subscribes again by itself.
                    self._subscriptions += 1
                    self._subscribed = True
