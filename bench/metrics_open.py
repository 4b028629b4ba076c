"""Measure how long the metrics endpoint takes for a chart of a million points.

`MetricsWriter` writes the metrics files, so that their index is like that of a real training. The cold time is that of
the first request to an api that has just started; the warm time is the median of ten requests. The index is then
deleted. The time of the next request, which rebuilds the index, and the api's memory are printed to standard error. The
reference is the documented limit of 1 s.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from bench.live_clients import api_process
from bench.local_stack import RunningStack, local_stack
from bench.report import Row, main
from common.metrics import MetricsWriter

LIMIT_SECONDS = 1.0
AT_ONCE = 50_000
"""The writer is flushed after this number of points, so that its bounded queue does not overflow."""


def run(quick: bool) -> list[Row]:
    """Measure with a chart of a million points, or 200,000 when `quick`."""
    points = 200_000 if quick else 1_000_000
    with local_stack() as stack, long_experiment(stack, points) as experiment:
        folder = stack.folder / "experiments" / experiment / "metrics"
        api = api_process(stack)
        cold = _open(stack, experiment, points)
        warm = statistics.median(_open(stack, experiment, points) for _ in range(10))
        (folder / "metrics.index").unlink()
        lost = _open(stack, experiment, points)
        memory = api.memory_info().rss / 1e6
    print(f"first request without an index: {lost:.2f} s; memory of the api: {memory:.0f} MB", file=sys.stderr)
    return [
        Row(
            f"time of a request for a chart of {points:,} points, {name}",
            "s",
            value,
            LIMIT_SECONDS,
            "limit",
            1.0,
            "at most",
        )
        for name, value in (("cold", cold), ("warm", warm))
    ]


@contextmanager
def long_experiment(stack: RunningStack, points: int) -> Iterator[str]:
    """Create an experiment, write `points` metric points for it and yield its id."""
    instance = stack.instance
    headers = {"Authorization": f"Bearer {instance.token}"}
    body = {"type": "lm-training", "notBefore": "2100-01-01T00:00:00Z"}
    job = httpx.post(f"{instance.api_url}/api/jobs", json=body, headers=headers).raise_for_status().json()
    folder = stack.folder / "experiments" / job["experimentId"]
    with MetricsWriter(folder, None, job["experimentId"], job["id"], 1) as writer:
        for step in range(points):
            values = {
                "Losses/Total": 8 / (step + 1),
                "Learning Rate": 1e-3,
                "Gradient Norm": step % 97,
                "Tokens/Second": 1e5,
            }
            if step % 100 == 0:
                values["Losses/Validation"] = 9 / (step + 1)
            writer.add("metrics", step, values)
            if step % AT_ONCE == 0:
                writer.flush()
    yield job["experimentId"]


def _open(stack: RunningStack, experiment: str, points: int) -> float:
    started = time.perf_counter()
    url = f"{stack.instance.api_url}/api/experiments/{experiment}/metrics?mode=historical&maxPoints=2000"
    reply = httpx.get(url, timeout=120).raise_for_status()
    seconds = time.perf_counter() - started
    found = reply.json()
    if found["totalPoints"] != points or len(found["series"]["Losses/Total"]) != 2000:
        raise RuntimeError(f"the reply reports {found['totalPoints']} points, but {points} were written")
    return seconds


if __name__ == "__main__":
    main(run, __doc__ or "")
