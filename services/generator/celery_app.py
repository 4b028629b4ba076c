"""The Celery app of the generator, for `celery -A services.generator.celery_app worker`.

`python -m services.generator` runs this command. This process does not import torch: its task hands a request over to
the engine process and returns. Celery's settings are in `common.redis.celery_settings`, the task is in
`services.generator.tasks`.
"""

from __future__ import annotations

import os
import secrets
import socket
from functools import lru_cache
from typing import Any

from celery import signals

from common.config import Settings, get_settings
from common.logging import configure
from common.redis.celery_settings import make_app
from common.redis.heartbeat import Heartbeat
from common.redis.keys import GENERATE_QUEUE
from common.redis.live_feed import LiveFeed
from services.generator.engine_host import EngineHost

app = make_app("tidal-generator", get_settings().redis_url)
app.conf.include = ["services.generator.tasks"]


class Generator:
    """The engine host of this process, and the thread that sends the generator's heartbeat."""

    def __init__(self, settings: Settings) -> None:
        self.host = EngineHost(settings)
        redis_url = settings.redis_url.get_secret_value()
        self._feed = LiveFeed(redis_url, stream_max_length=settings.stream_max_length)
        name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._heartbeat = Heartbeat(
            name, self._feed, self._describe, seconds=settings.heartbeat_seconds, children=self._children
        )

    def close(self) -> None:
        """End the engine process, stop the heartbeat and close the connection to Redis."""
        self.host.close()
        self._heartbeat.close()
        self._feed.close()

    def _children(self) -> list[int]:
        return [] if self.host.pid is None else [self.host.pid]

    def _describe(self) -> dict[str, str]:
        busy = self.host.waiting > 0
        return {
            "queue": GENERATE_QUEUE,
            "state": "starting" if not self.host.ready.is_set() else "busy" if busy else "idle",
            "waiting": str(self.host.waiting),
            "restarts": str(self.host.restarts),
            "enginePid": "" if self.host.pid is None else str(self.host.pid),
        }


@lru_cache(maxsize=1)
def get_generator() -> Generator:
    """Return the generator of this process. The first call creates it."""
    return Generator(get_settings())


def _configure_logging(**_: Any) -> None:
    configure("generator")


def _start_generator(**_: Any) -> None:
    get_generator()


def _begin_shutdown(**_: Any) -> None:
    # Celery sends `worker_shutdown` only after the threads of its pool have returned, but one of them may be blocked in
    # `hand_over`. Therefore that thread must be released now.
    get_generator().host.begin_shutdown()


def _close(**_: Any) -> None:
    get_generator().close()


signals.setup_logging.connect(_configure_logging, weak=False)
signals.worker_init.connect(_start_generator, weak=False)
signals.worker_shutting_down.connect(_begin_shutdown, weak=False)
signals.worker_shutdown.connect(_close, weak=False)
