"""Sends status, checkpoints and heartbeats of a worker to Redis for display. Never blocks, and may drop commands.

Each call puts a command into a bounded queue and returns; one thread sends the commands in pipelines. While Redis is
not available, commands are dropped, because PostgreSQL and the archive hold the authoritative data, and heartbeats are
repeated. Metrics and logs, of which no line may be lost, are sent by `common.metrics.writer` and
`services.worker.log_capture`.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from common.logging import get_logger
from common.redis import keys
from common.redis.client import WORKER_COMMANDS, connect

log = get_logger(__name__)

MAX_WAITING = 1000
BATCH = 100
RETRY_SECONDS = 1.0

Command = Callable[["redis.client.Pipeline"], object]


class LiveFeed:
    """The live feed of one worker process."""

    def __init__(self, redis_url: str, *, stream_max_length: int) -> None:
        self._client = connect(redis_url, WORKER_COMMANDS)
        self._max_length = stream_max_length
        self._commands: queue.Queue[Command | None] = queue.Queue(MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-feed", daemon=True)
        self._thread.start()

    def event(self, streams: Sequence[str], event: str, data: Mapping[str, Any]) -> None:
        """Append one event to each stream."""
        fields: dict[Any, Any] = {"event": event, "data": json.dumps(data)}

        def command(pipe: redis.client.Pipeline) -> None:
            for stream in streams:
                pipe.xadd(stream, fields, maxlen=self._max_length, approximate=True)

        self._put(command)

    def heartbeat(self, worker: str, fields: Mapping[str, str], *, now: float, seconds_to_live: float) -> None:
        """Replace the heartbeat of `worker`; `now` is in seconds since 1970."""

        mapping: dict[Any, Any] = dict(fields)

        def command(pipe: redis.client.Pipeline) -> None:
            key = keys.heartbeat(worker)
            pipe.delete(key)
            pipe.hset(key, mapping=mapping)
            pipe.pexpire(key, round(seconds_to_live * 1000))
            pipe.zadd(keys.WORKERS, {worker: now})
            pipe.zremrangebyscore(keys.WORKERS, 0, now - 24 * 3600)

        self._put(command)

    def farewell(self, worker: str) -> None:
        """Remove `worker` and its heartbeat."""

        def command(pipe: redis.client.Pipeline) -> None:
            pipe.delete(keys.heartbeat(worker))
            pipe.zrem(keys.WORKERS, worker)

        self._put(command)

    def close(self) -> None:
        """Send the waiting commands, if Redis answers, and close the connection."""
        self._stop.set()
        with contextlib.suppress(queue.Full):
            self._commands.put_nowait(None)
        self._thread.join()
        self._client.close()

    def _put(self, command: Command) -> None:
        with contextlib.suppress(queue.Full):
            self._commands.put_nowait(command)

    def _run(self) -> None:
        unavailable = False
        while True:
            batch = [self._commands.get()]
            while len(batch) < BATCH and not self._commands.empty():
                batch.append(self._commands.get())
            try:
                with self._client.pipeline(transaction=False) as pipe:
                    for command in batch:
                        if command is not None:
                            command(pipe)
                    pipe.execute()
                unavailable = False
            except (redis.RedisError, OSError) as error:
                if not unavailable:
                    log.warning("the live feed is interrupted: Redis does not answer", error=str(error))
                unavailable = True
                self._stop.wait(RETRY_SECONDS)
            if None in batch or (self._stop.is_set() and (unavailable or self._commands.empty())):
                return
