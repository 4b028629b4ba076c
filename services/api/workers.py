"""Reads the live workers from their heartbeats in Redis, and predicts queue positions and start times of jobs.

The results are only for display. Requests rarely wait for Redis, because one thread reads the heartbeats while the
others use the previous result, and because failed reads are repeated only after RETRY_SECONDS.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import redis
from sqlalchemy.orm import Session

from common.config import Settings
from common.jobs.waiting_line import QueuePosition, queue_positions
from common.redis import keys
from common.redis.client import DISPLAY_READS, connect

FRESH_SECONDS = 2.0
RETRY_SECONDS = 5.0
"""Seconds between a failed read of the heartbeats and the next attempt."""
FIELDS = {
    "worker": "worker",
    "queue": "queue",
    "host": "host",
    "device": "device",
    "state": "state",
    "machine": "machine",
    "calibration": "calibration",
    "memory_limit": "memoryLimitBytes",
    "job": "job",
}
"""{attribute of WorkerBeat: field of the heartbeat}"""


@dataclass(frozen=True)
class WorkerBeat:
    """The contents of a worker's last heartbeat."""

    worker: str
    queue: str
    host: str
    device: str
    state: str
    """`idle`, `busy` or `leaving`."""
    machine: str = ""
    """The kind of machine as JSON (`common.prediction.machine`)."""
    calibration: str = ""
    """The calibration of the machine as JSON; empty until the machine is calibrated."""
    memory_limit: str = ""
    """Memory in bytes that programs may use on the machine."""
    job: str | None = None


class WorkerCache:
    """Caches the heartbeats of all workers. Its methods are thread-safe."""

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url, DISPLAY_READS)
        self._lock = threading.Lock()
        self._known: list[WorkerBeat] | None = None
        self._good_until = 0.0

    def alive(self, queue: str) -> list[WorkerBeat] | None:
        """Return the live workers of `queue`, sorted by name; None if Redis does not respond."""
        if time.monotonic() >= self._good_until and self._lock.acquire(blocking=self._good_until == 0.0):
            try:
                self._refresh()
            finally:
                self._lock.release()
        known = self._known
        return None if known is None else [beat for beat in known if beat.queue == queue]

    def slots(self, queue: str) -> int | None:
        """Return the number of live workers of `queue` that may claim jobs; None if Redis does not respond."""
        beats = self.alive(queue)
        return None if beats is None else sum(beat.state != "leaving" for beat in beats)

    def close(self) -> None:
        """Close the connection to Redis."""
        self._client.close()

    def _refresh(self) -> None:
        if time.monotonic() < self._good_until:
            return  # another thread read the heartbeats while this one waited
        try:
            names = [str(name) for name in self._client.zrange(keys.WORKERS, 0, -1)]
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.hmget(keys.heartbeat(name), list(FIELDS.values()))
            beats = [dict(zip(FIELDS, values, strict=True)) for values in pipe.execute()]
        except redis.RedisError:
            self._known, self._good_until = None, time.monotonic() + RETRY_SECONDS
            return
        self._known = sorted(
            (
                WorkerBeat(**{**{name: value or "" for name, value in values.items()}, "job": values["job"]})
                for values in beats
                if values["worker"]
            ),
            key=lambda beat: beat.worker,
        )
        self._good_until = time.monotonic() + FRESH_SECONDS


@dataclass(frozen=True)
class Outlook:
    """Predicts queue positions and start times of jobs from the limits of the queues and the live workers."""

    settings: Settings
    workers: WorkerCache

    def places(self, session: Session, job_ids: Iterable[str]) -> dict[str, QueuePosition]:
        """Return {job id: queue position} of those jobs in `job_ids` that are waiting."""
        return queue_positions(session, self.settings, self.workers.slots, job_ids)
