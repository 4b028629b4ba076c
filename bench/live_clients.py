"""Connect a thousand clients to one experiment's event stream and measure lost points, delays and memory.

A `MetricsWriter` reports five points a second. In the first run all clients stay connected. In the second run each
client closes its connection after every 50 events and reconnects with `Last-Event-ID`. Lost and repeated points are
counted for each client. For each point and client, two delays are measured: one from the call of `MetricsWriter.add`
to the arrival at the client, the other from the time at which Redis received the point to the arrival. The largest
resident memory of the api process is measured too. The load generator (`bench.stream_load`) runs on the same cores as
the api; the CPU times of both are printed to standard error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from bench.local_stack import ROOT, RunningStack, local_stack
from bench.report import Row, main
from common.metrics import MetricsWriter

CLIENTS = 1000
POINTS_PER_SECOND = 5.0
DROP_EVERY = 50
LIMIT_DELAY_MS = 250.0
LIMIT_MEMORY_MB = 200.0


def run(quick: bool) -> list[Row]:
    """Measure two minutes without and two minutes with reconnections, or 10 s each when `quick`."""
    seconds = 10.0 if quick else 120.0
    with local_stack() as stack:
        api = api_process(stack)
        steady, memory = _measure(stack, api, seconds, drop_every=0)
        broken, more_memory = _measure(stack, api, seconds, drop_every=DROP_EVERY // 2 if quick else DROP_EVERY)
    rows = []
    for name, found in (("steady", steady), ("reconnecting", broken)):
        rows += [
            _zero(f"{name}: points lost", found["lost"]),
            _zero(f"{name}: points received twice", found["duplicate"]),
            _zero(f"{name}: resets and broken clients", found["resets"] + len(found["broken"])),
        ]
    rows += [
        _at_most(
            "steady: delay from MetricsWriter.add to client, p99",
            "ms",
            _quantile(steady["fromAdd"], 0.99),
            LIMIT_DELAY_MS,
        ),
        _at_most("steady: delay from Redis to client, p99", "ms", _quantile(steady["fromRedis"], 0.99), LIMIT_DELAY_MS),
        _at_most("largest memory of the api", "MB", max(memory, more_memory), LIMIT_MEMORY_MB),
    ]
    return rows


def _measure(stack: RunningStack, api: psutil.Process, seconds: float, *, drop_every: int) -> tuple[Any, float]:
    instance = stack.instance
    headers = {"Authorization": f"Bearer {instance.token}"}
    # Only the job's experiment is needed. No worker claims the job, because `notBefore` is far in the future.
    body = {"type": "lm-training", "notBefore": "2100-01-01T00:00:00Z"}
    job = httpx.post(f"{instance.api_url}/api/jobs", json=body, headers=headers).raise_for_status().json()
    address = urlsplit(instance.api_url)
    command = [sys.executable, "-m", "bench.stream_load", "--host", str(address.hostname), "--port", str(address.port)]
    command += ["--path", f"/api/experiments/{job['experimentId']}/stream", "--clients", str(CLIENTS)]
    command += ["--drop-every", str(drop_every)]
    load = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert load.stdin is not None and load.stdout is not None
    try:
        started, memory_before = time.monotonic(), api.memory_info().rss / 1e6
        if load.stdout.readline().strip() != "connected":
            raise RuntimeError("the load generator did not connect its clients")
        connected = time.monotonic() - started
        cpu, begun, memory, step = _cpu(api), time.monotonic(), 0.0, 0
        with (
            tempfile.TemporaryDirectory() as folder,
            MetricsWriter(Path(folder), instance.redis_url, job["experimentId"], job["id"], 1) as writer,
        ):
            while time.monotonic() - begun < seconds:
                step += 1
                writer.add("metrics", step, {"Losses/Total": 1 / step, "Learning Rate": 1e-3, "Tokens/Second": 1e5})
                memory = max(memory, api.memory_info().rss / 1e6)
                time.sleep(max(0.0, begun + step / POINTS_PER_SECOND - time.monotonic()))
        cpu = (_cpu(api) - cpu) / (time.monotonic() - begun)
        load.stdin.write(f"stop {step}\n")
        load.stdin.flush()
        found = json.loads(load.stdout.readline())
        load.wait(30)
    finally:
        load.kill()
        load.wait()
    share = found["cpuSeconds"] / (time.monotonic() - begun)
    print(
        f"{CLIENTS} clients connected in {connected:.1f} s, {step} points, {found['received']} received, "
        f"{found['reconnections']} reconnections; api {cpu:.2f} cores, {memory_before:.0f} to {memory:.0f} MB; "
        f"load generator {share:.2f} cores; "
        + "; ".join(
            f"{name} p50 {_quantile(found[name], 0.5):.0f} p99 {_quantile(found[name], 0.99):.0f} "
            f"max {_quantile(found[name], 1.0):.0f} ms"
            for name in ("fromAdd", "fromRedis")
        ),
        *found["broken"][:3],
        file=sys.stderr,
    )
    return found, memory


def api_process(stack: RunningStack) -> psutil.Process:
    """Return the api process of the stack."""
    for child in psutil.Process(stack.process.pid).children(recursive=True):
        if "services.api" in child.cmdline():
            return child
    raise RuntimeError("the stack has no process services.api")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _quantile(counted: list[list[int]], share: float) -> float:
    """Return a quantile of a histogram, which is a list of [value, count] pairs with ascending values."""
    remaining = share * sum(count for _, count in counted)
    for value, count in counted:
        remaining -= count
        if remaining <= 0:
            return float(value)
    return float(counted[-1][0]) if counted else float("nan")


def _zero(name: str, found: int) -> Row:
    return Row(name, "points", float(found), 1.0, "none allowed", 0.0, "at most")


def _at_most(name: str, unit: str, value: float, limit: float) -> Row:
    return Row(name, unit, value, limit, "limit", 1.0, "at most")


if __name__ == "__main__":
    main(run, __doc__ or "")
