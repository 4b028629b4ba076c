"""Measure the delay from adding a metric in a trainer to its arrival at an SSE client.

A point passes through the writer thread, Redis, the api and HTTP. A `MetricsWriter` in this process acts as the
trainer, so that both times are from one clock. The documented limit is 250 ms. Because the writer flushes every 200 ms,
it alone delays a point by 100 ms on average.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx

from bench.local_stack import RunningStack, local_stack
from bench.report import Row, main
from common.metrics import MetricsWriter
from tidal_client import read_events
from tidal_client.local_instance import LocalInstance

LIMIT_MILLISECONDS = 250.0


def run(quick: bool) -> list[Row]:
    """Send 200 points (100 when `quick`) at random times, about 20 a second."""
    with local_stack() as stack:
        delays = _measure(stack, 100 if quick else 200)
    ordered = sorted(delays)
    return [
        Row(name, "ms", value, LIMIT_MILLISECONDS, "limit", 1.0, "at most")
        for name, value in (
            ("delay from MetricsWriter.add to SSE client, median", statistics.median(ordered)),
            ("delay from MetricsWriter.add to SSE client, p99", ordered[int(0.99 * (len(ordered) - 1))]),
        )
    ]


def _measure(stack: RunningStack, points: int) -> list[float]:
    instance: LocalInstance = stack.instance
    headers = {"Authorization": f"Bearer {instance.token}"}
    # Only the job's experiment is needed. No worker claims the job, because `notBefore` is far in the future.
    body = {"type": "lm-training", "notBefore": "2100-01-01T00:00:00Z"}
    job = httpx.post(f"{instance.api_url}/api/jobs", json=body, headers=headers).raise_for_status().json()
    experiment = job["experimentId"]
    arrived: dict[int, float] = {}
    connected = threading.Event()
    finished = threading.Event()

    def listen() -> None:
        url = f"{instance.api_url}/api/experiments/{experiment}/stream"
        with httpx.stream("GET", url, timeout=30) as reply:
            connected.set()
            for event in read_events(reply):
                if event.name == "metrics":
                    now = time.time()
                    for point in event.data["points"]:
                        arrived.setdefault(point["step"], now)
                if len(arrived) == points:
                    finished.set()
                    return

    threading.Thread(target=listen, daemon=True).start()
    connected.wait(30)
    rng = random.Random(1)
    sent: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        writer = MetricsWriter(Path(folder), instance.redis_url, experiment, job["id"], 1)
        for step in range(1, points + 1):
            time.sleep(rng.uniform(0.02, 0.08))
            sent[step] = time.time()
            writer.add("metrics", step, {"Losses/Total": rng.random()})
        if not finished.wait(30):
            raise RuntimeError(f"{points - len(arrived)} of {points} points did not arrive within 30 s")
        writer.close()
    return [1000 * (arrived[step] - sent[step]) for step in sent]


if __name__ == "__main__":
    main(run, __doc__)
