"""Receives the notifications in Redis that the desired state of a job has changed.

Without them, a worker would notice the change only at its next poll of the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis

from common.redis import keys
from common.redis.client import WORKER_COMMANDS, connect

RETRY_SECONDS = 1.0


class DesiredStateListener:
    """Calls `on_change(job_id)` for each notification.

    Notifications may be lost during an outage of Redis; the worker's polls find those changes.
    """

    def __init__(self, redis_url: str, on_change: Callable[[str], None]) -> None:
        self._client = connect(redis_url, WORKER_COMMANDS)
        self._on_change = on_change
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="desired-state", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. This takes up to two seconds."""
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with redis.client.PubSub(self._client.connection_pool, ignore_subscribe_messages=True) as channel:
                    channel.subscribe(keys.DESIRED_STATE_CHANNEL)
                    while not self._stop.is_set():
                        message = channel.get_message(timeout=1.0)
                        if message is not None:
                            self._on_change(str(message["data"]))
            except (redis.RedisError, OSError):
                self._stop.wait(RETRY_SECONDS)
