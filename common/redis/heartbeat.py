"""Heartbeats in Redis: writes those of the workers, and evaluates the heartbeat of the health process.

The heartbeat of a worker holds its host, device, memory and present job. It is only displayed; the lease decides
whether a worker still owns its job. The heartbeat of the health process holds the time of the last successful
maintenance pass, so that a failing reaper is noticed; `common.redis.publisher` writes this heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil
import redis

from common.redis import keys
from common.redis.client import WORKER_COMMANDS, connect
from common.redis.live_feed import LiveFeed

MISSED = 3
"""Number of missed heartbeats after which a worker is no longer displayed."""
MAINTENANCE_FIELDS = ("sweptAt", "trouble")
"""Fields of the heartbeat of the health process (`keys.HEALTH`) that `maintenance_problem` needs."""
MISSED_PASSES = 6
"""Number of missed maintenance passes after which `maintenance_problem` reports a problem."""
MIN_ALARM_AGE_SECONDS = 60.0
"""Age in seconds of the last maintenance pass below which no problem is reported, so that a database restart raises no
alarm."""


class Heartbeat:
    """Sends a heartbeat at an interval of `seconds`, and whenever `beat` is called.

    `describe` returns additional fields of the heartbeat. `children` returns the ids of the processes whose memory is
    added to the worker's.
    """

    def __init__(
        self,
        worker: str,
        feed: LiveFeed,
        describe: Callable[[], Mapping[str, str]],
        *,
        seconds: float,
        children: Callable[[], Iterable[int]],
    ) -> None:
        self._worker, self._feed, self._describe, self._seconds = worker, feed, describe, seconds
        self._children = children
        self._device = device_name()
        self._started_at = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Send a heartbeat now. Never blocks."""
        now = time.time()
        memory = psutil.virtual_memory()
        fields = {
            "worker": self._worker,
            "host": platform.node(),
            "pid": str(os.getpid()),
            "device": self._device,
            "at": f"{now:.3f}",
            "startedAt": f"{self._started_at:.3f}",
            "memoryBytes": str(self._memory()),
            "hostMemoryBytes": str(memory.total),
            "hostMemoryAvailableBytes": str(memory.available),
            "load": f"{os.getloadavg()[0]:.2f}",
            **self._describe(),
        }
        self._feed.heartbeat(self._worker, fields, now=now, seconds_to_live=MISSED * self._seconds)

    def close(self) -> None:
        """Stop the heartbeats and delete the last one, so that the worker is no longer displayed."""
        self._stop.set()
        self._thread.join()
        self._feed.farewell(self._worker)

    def _run(self) -> None:
        self.beat()
        while not self._stop.wait(self._seconds):
            self.beat()

    def _memory(self) -> int:
        """Return the resident memory of the worker and its children in bytes, without a scan of all processes."""
        total = 0
        for pid in (os.getpid(), *self._children()):
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
        return total


def alive_on_host(redis_url: str, queue: str, host: str | None = None) -> bool:
    """Return whether a worker of `queue` on `host` (by default this machine) has a heartbeat.

    Without Redis, return False.
    """
    client = connect(redis_url, WORKER_COMMANDS)
    try:
        for name in client.zrange(keys.WORKERS, 0, -1):
            beat = client.hmget(keys.heartbeat(str(name)), ["host", "queue"])
            if beat == [host or platform.node(), queue]:
                return True
    except redis.RedisError:
        return False
    finally:
        client.close()
    return False


def device_name(proc: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    """Return the model of the first NVIDIA GPU that the driver lists, or "cpu". Does not import torch."""
    for information in sorted(proc.glob("*/information")):
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "Model":
                return value.strip()
    return "cpu"


def maintenance_problem(last_pass_at: str | None, problem: str | None, reaper_seconds: float) -> str:
    """Describe the problem with the maintenance passes of the health process (`common.jobs.maintenance`); return ""
    without one.

    `last_pass_at` is the ISO time of the last successful pass, `problem` the error of the last failed one.
    """
    if last_pass_at is None:
        return "no health process runs, so jobs of lost workers are not restarted; run python -m services.health"
    age = (datetime.now(UTC) - datetime.fromisoformat(last_pass_at)).total_seconds()
    if age <= max(MIN_ALARM_AGE_SECONDS, MISSED_PASSES * reaper_seconds):
        return ""
    return f"the last successful maintenance pass was {age:.0f} s ago; the newest error is: {problem or 'no answer'}"
