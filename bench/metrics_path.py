"""Measure the CPU and wall time that a training spends on reporting metrics, and the points lost in a Redis outage.

* CPU time per point: the difference of `time.thread_time_ns` around `MetricsWriter.add`. Steps of 5 ms of arithmetic
  between the calls make caches as cold as in a training. The time of reading the clock is measured and subtracted.
* Blocking calls: the number of read and write system calls of the training thread in all `add` calls
  (/proc/thread-self/io), and of audit events of the interpreter (open, connect, fsync and similar). Both must be 0.
  Afterwards Redis is suspended with SIGSTOP, so that the writer's thread blocks in its socket, and the longest `add`
  call during that time is printed.
* Wall time: blocks of steps with and without `add` alternate. The result is the median ratio of a block with `add` to
  the neighbouring block without, and a bootstrap interval.
* Redis outage: Redis is killed, points are added for a minute, and Redis is started again. Afterwards the metrics files
  and the stream in Redis must contain every point once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis

from bench.report import Row, main
from common.metrics import MetricsWriter, read_table
from common.redis import keys
from services.local.servers import ValkeyServer

LIMIT_MICROSECONDS = 50.0
STEP_SECONDS = 0.005
BLOCK_STEPS = 100
RESAMPLES = 10_000
VALUES = {"Losses/Total": 2.0, "Learning Rate": 1e-3, "Gradient Norm": 0.5, "Tokens/Second": 1e5, "Epoch/Progress": 0.1}
WALL_BOUND = 1.1
"""Largest accepted ratio of the wall time of a step with metrics to that without. On a shared machine the ratio varies
by several percent; the documented limit is `LIMIT_MICROSECONDS`."""
NO_AUDIT = ("object.__getattr__", "sys._getframe", "builtins.id")


def run(quick: bool) -> list[Row]:
    """Measure 10,000 steps and a Redis outage of 60 s, or 1,000 steps and 5 s when `quick`."""
    steps, outage_seconds = (1_000, 5.0) if quick else (10_000, 60.0)
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
        server = ValkeyServer(Path(folder) / "valkey")
        server.start()
        try:
            return _rows(server, Path(folder), steps, outage_seconds)
        finally:
            server.remove()


def _rows(server: ValkeyServer, folder: Path, steps: int, outage_seconds: float) -> list[Row]:
    step = _step()
    with MetricsWriter(folder / "e1", server.url, "e1", "j1", 1) as writer:
        cpu, calls, events = _cpu_per_point(writer, step, steps // 4)
        ratios = _ratios(writer, step, steps)
        longest = _longest_while_stopped(writer, server)
    found = sorted(statistics.median(random.Random(n).choices(ratios, k=len(ratios))) for n in range(RESAMPLES // 10))
    low, high = found[int(0.025 * len(found))], found[int(0.975 * len(found))]
    print(
        f"wall time with metrics / without metrics, {len(ratios)} pairs of {BLOCK_STEPS} steps: "
        f"{statistics.median(ratios):.4f} [{low:.4f}, {high:.4f}]; longest add with Redis suspended {longest:.2f} ms",
        file=sys.stderr,
    )
    in_archive, in_stream = _points_lost_while_killed(server, folder, outage_seconds)
    return [
        Row(
            "CPU time of the training thread per point, mean",
            "µs",
            cpu,
            LIMIT_MICROSECONDS,
            "limit",
            1.0,
            "at most",
        ),
        _zero("read and write system calls in add", calls),
        _zero("audit events in add", events),
        Row(
            f"wall time of a step with metrics / without metrics [{low:.4f}, {high:.4f}]",
            "",
            statistics.median(ratios),
            1.0,
            "without",
            WALL_BOUND,
            "at most",
        ),
        _zero(f"Redis outage of {outage_seconds:.0f} s: points missing in the metrics files", in_archive),
        _zero(f"Redis outage of {outage_seconds:.0f} s: points missing or repeated in the stream", in_stream),
    ]


def _step() -> Callable[[], object]:
    """Return a function that does about STEP_SECONDS of arithmetic in one thread."""
    a = np.random.default_rng(1).normal(size=(192, 192)).astype(np.float32)

    def work(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            np.tanh(a)
        return time.perf_counter() - started

    work(50)
    count = max(1, round(STEP_SECONDS * 200 / min(work(200) for _ in range(3))))
    return lambda: work(count)


def _cpu_per_point(writer: MetricsWriter, step: Callable[[], object], count: int) -> tuple[float, int, int]:
    """Return the CPU microseconds per point, and the numbers of system calls and audit events in all `add` calls."""
    me, armed, events = threading.get_ident(), [False], [0]

    def hook(event: str, _: Any) -> None:
        if armed[0] and threading.get_ident() == me and event not in NO_AUDIT:
            events[0] += 1

    sys.addaudithook(hook)
    spent = empty = 0
    calls = 0
    for number in range(count):
        step()
        begun = time.thread_time_ns()
        empty += time.thread_time_ns() - begun
        before = _io()
        base = _io() - before  # `_io` itself makes these system calls; they are subtracted
        armed[0] = True
        begun = time.thread_time_ns()
        writer.add("metrics", number, VALUES)
        spent += time.thread_time_ns() - begun
        armed[0] = False
        calls += _io() - before - 2 * base
    return (spent - empty) / count / 1000, calls, events[0]


def _io() -> int:
    """Return the number of read and write system calls of this thread so far; 0 if the kernel does not count them."""
    try:
        fd = os.open("/proc/thread-self/io", os.O_RDONLY)
    except OSError:
        return 0
    try:
        fields = dict(line.split(b": ") for line in os.read(fd, 4096).splitlines())
    finally:
        os.close(fd)
    return int(fields[b"syscr"]) + int(fields[b"syscw"])


def _ratios(writer: MetricsWriter, step: Callable[[], object], steps: int) -> list[float]:
    number = 1_000_000
    rng = random.Random(2)
    ratios = []
    for _ in range(max(5, steps // BLOCK_STEPS)):
        seconds = {}
        for reporting in rng.sample([True, False], 2):
            begun = time.perf_counter()
            for _ in range(BLOCK_STEPS):
                step()
                if reporting:
                    number += 1
                    writer.add("metrics", number, VALUES)
            seconds[reporting] = time.perf_counter() - begun
            writer.flush()
        ratios.append(seconds[True] / seconds[False])
    return ratios


def _longest_while_stopped(writer: MetricsWriter, server: ValkeyServer) -> float:
    """Return the wall time in milliseconds of the longest `add` call while Redis is suspended."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    longest = 0.0
    try:
        for number in range(300):
            begun = time.perf_counter()
            writer.add("metrics", 5_000_000 + number, VALUES)
            longest = max(longest, time.perf_counter() - begun)
            time.sleep(0.01)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    return 1000 * longest


def _points_lost_while_killed(server: ValkeyServer, folder: Path, outage_seconds: float) -> tuple[int, int]:
    """Return the number of points missing in the metrics files, and of those missing or repeated in the stream."""
    step = 0
    with MetricsWriter(folder / "e2", server.url, "e2", "j2", 1, stream_max_length=1_000_000) as writer:
        for phase in ("before", "away", "back"):
            if phase == "away":
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
            elif phase == "back":
                server.start()
            end = time.monotonic() + (outage_seconds if phase == "away" else 1.0)
            while time.monotonic() < end:
                step += 1
                writer.add("metrics", step, VALUES)
                time.sleep(0.01)
        # The writer waits at most 5 s between two attempts to connect to Redis.
        time.sleep(6)
    archived = read_table(folder / "e2", "metrics").steps.tolist()
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        entries = client.xrange(keys.experiment_stream("e2"))
    streamed = [
        p["step"] for _, entry in entries if entry["event"] == "metrics" for p in json.loads(entry["data"])["points"]
    ]
    expected = list(range(1, step + 1))
    missing = len(set(expected) - set(streamed)) + len(streamed) - len(set(streamed))
    return len(set(expected) - set(archived)), missing


def _zero(name: str, found: int) -> Row:
    return Row(name, "", float(found), 1.0, "none allowed", 0.0, "at most")


if __name__ == "__main__":
    main(run, __doc__ or "")
