"""Attack the api with 2,000 idle connections, 500 half-sent headers and 200 half-sent bodies at once.

The attack runs against the api of a local stack, then against an api with 256 file descriptors. During the attack the
benchmark requests `/healthz` ten times a second, each time on a new connection, and counts the lines that the api logs.
Clients of an event stream check that every point arrives once, in ascending order of steps, and without a reconnection.
After the attack the benchmark measures the size of `/metrics` after requests with invented HTTP methods, and the size
of the reply to a body with 60,000 unknown keys.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.live_clients import api_process
from bench.local_stack import ROOT, RunningStack, local_stack
from bench.report import Row, main
from common.metrics import MetricsWriter
from tidal_client.local_instance import LocalInstance

IDLE, HALF_HEADERS, HALF_BODIES = 2000, 500, 200
OPENED_PER_SECOND = 1500
"""Connections opened per second. At a higher rate, new connections would wait in the kernel, because asyncio needs
about 0.3 ms to accept one."""
AGAIN_PER_SECOND = 200
"""Largest number of connections per second that are reopened after the server has closed them."""
DESCRIPTORS = 256
STREAM_CLIENTS = 10
POINTS_PER_SECOND = 10.0
LIMIT_SECONDS = 1.0
LIMIT_LINES = 100.0
LIMIT_METRICS_KB = 100.0
LIMIT_REPLY_KB = 64.0
KEYS = 60_000
STARTED = re.compile(r"http://127\.0\.0\.1:\d+")
LIMITED = (
    "import resource, runpy; "
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS})); "
    "runpy.run_module('services.api', run_name='__main__')"
)


def run(quick: bool) -> list[Row]:
    """Attack each api for 90 s, which is longer than all time limits of the api, or for 15 s when `quick`."""
    seconds = 15.0 if quick else 90.0
    with local_stack() as stack:
        instance = stack.instance
        log = Path(instance.logs_dir) / "api.log"
        rows = _attack("as started", instance, instance.api_url, log, seconds, api_process(stack).pid)
        with _limited_api(stack) as (url, log, pid):
            rows += _attack(f"{DESCRIPTORS} descriptors", instance, url, log, seconds, pid)
        rows += _measure_sizes(instance, 600 if quick else 6000)
    return rows


def _attack(name: str, instance: LocalInstance, url: str, log: Path, seconds: float, pid: int) -> list[Row]:
    address = urlsplit(url)
    place = ["--host", str(address.hostname), "--port", str(address.port)]
    before = len(log.read_text().splitlines())
    # Only the job's experiment is needed. No worker claims the job, because `notBefore` is far in the future.
    body = {"type": "lm-training", "notBefore": "2100-01-01T00:00:00Z"}
    job = httpx.post(f"{url}/api/jobs", json=body, headers={"Authorization": f"Bearer {instance.token}"}).json()
    stream = [*place, "--path", f"/api/experiments/{job['experimentId']}/stream", "--clients", str(STREAM_CLIENTS)]
    followers = _start("bench.stream_load", stream)
    health = Health(str(address.hostname), address.port or 0)
    attack = None
    step = 0
    try:
        assert followers.stdin is not None and followers.stdout is not None
        if followers.stdout.readline().strip() != "connected":
            raise RuntimeError("the clients of the event stream did not connect")
        counts = ["--idle", str(IDLE), "--half-headers", str(HALF_HEADERS), "--half-bodies", str(HALF_BODIES)]
        pace = ["--rate", str(OPENED_PER_SECOND), "--again", str(AGAIN_PER_SECOND), "--seconds", str(seconds)]
        attack = _start("bench.hostile_load", [*place, *counts, *pace])
        memory, descriptors, begun = 0.0, 0, time.monotonic()
        with (
            tempfile.TemporaryDirectory() as folder,
            MetricsWriter(Path(folder), instance.redis_url, job["experimentId"], job["id"], 1) as writer,
            health,
        ):
            while time.monotonic() - begun < seconds + 2:
                step += 1
                writer.add("metrics", step, {"Losses/Total": 1 / step})
                memory = max(memory, _resident_mb(pid))
                descriptors = max(descriptors, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
                time.sleep(max(0.0, begun + step / POINTS_PER_SECOND - time.monotonic()))
        followers.stdin.write(f"stop {step}\n")
        followers.stdin.flush()
        found: dict[str, Any] = json.loads(followers.stdout.readline())
        attack_counts = attack.communicate(timeout=30)[0].splitlines()[-1]
    finally:
        for process in (followers, attack):
            if process is not None:
                process.kill()
                process.wait()
    lines = len(log.read_text().splitlines()) - before
    print(
        f"{name}: {attack_counts}; {health.requested} health checks, p50 {1000 * health.median():.0f} ms; api at most "
        f"{memory:.0f} MB and {descriptors} descriptors; {step} points for {STREAM_CLIENTS} clients",
        file=sys.stderr,
    )
    broken = found["resets"] + found["reconnections"] + len(found["broken"])
    return [
        _at_most(f"{name}: /healthz, longest response time", "s", health.longest(), LIMIT_SECONDS),
        _zero(f"{name}: /healthz requests that failed", "requests", health.failed),
        _zero(f"{name}: event stream, points lost", "points", found["lost"]),
        _zero(f"{name}: event stream, points received twice", "points", found["duplicate"]),
        _zero(f"{name}: event stream, broken connections", "connections", broken),
        _at_most(f"{name}: lines in the log", "lines", lines, LIMIT_LINES),
        _at_most(f"{name}: memory of the api", "MB", memory, 400.0),
    ]


def _measure_sizes(instance: LocalInstance, methods: int) -> list[Row]:
    with httpx.Client(base_url=instance.api_url, timeout=60) as client:
        for number in range(methods):
            client.request(f"INVENTED{number}", "/api/jobs")
        size = len(client.get("/metrics").content)
        client.headers["Authorization"] = f"Bearer {instance.token}"
        config = {f"key{number:06}": 1 for number in range(KEYS)}
        started = time.monotonic()
        reply = client.post("/api/jobs", json={"type": "lm-training", "config": config})
        print(
            f"request with {KEYS} unknown keys: status {reply.status_code} after {time.monotonic() - started:.2f} s",
            file=sys.stderr,
        )
    return [
        _at_most(
            f"size of /metrics after requests with {methods} invented HTTP methods",
            "kB",
            size / 1000,
            LIMIT_METRICS_KB,
        ),
        _at_most(
            f"size of the reply to a body with {KEYS} unknown keys", "kB", len(reply.content) / 1000, LIMIT_REPLY_KB
        ),
    ]


class Health:
    """A context manager with a thread that requests `/healthz` ten times a second, each time on a new connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._seconds: list[float] = []
        self.failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._request_repeatedly, daemon=True)

    @property
    def requested(self) -> int:
        """Number of requests, including failed ones."""
        return len(self._seconds) + self.failed

    def longest(self) -> float:
        """Return the longest time to a response or a failure, in seconds."""
        return max(self._seconds)

    def median(self) -> float:
        """Return the median time to a response or a failure, in seconds."""
        return sorted(self._seconds)[len(self._seconds) // 2]

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _request_repeatedly(self) -> None:
        while not self._stop.wait(0.1):
            started = time.monotonic()
            connection = http.client.HTTPConnection(self._host, self._port, timeout=10)
            try:
                connection.request("GET", "/healthz")
                ok = connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                ok = False
            connection.close()
            self._seconds.append(time.monotonic() - started)
            self.failed += not ok


@contextmanager
def _limited_api(stack: RunningStack) -> Iterator[tuple[str, Path, int]]:
    """Start another api of the stack, with few file descriptors. Yield its URL, log file and process id."""
    instance = stack.instance
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")}
    environment |= {
        "TIDAL_DATABASE_URL": instance.database_url,
        "TIDAL_REDIS_URL": instance.redis_url,
        "TIDAL_AUTH_TOKEN": instance.token,
        "TIDAL_EXPERIMENTS_DIR": instance.experiments_dir,
        "TIDAL_DATA_DIR": instance.data_dir,
        "TIDAL_PORT": "0",
    }
    log = stack.folder / "limited-api.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", LIMITED], cwd=ROOT, env=environment, stderr=output)
    try:
        until = time.monotonic() + 60
        while not (found := STARTED.search(log.read_text())):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the api did not start: {log.read_text()}")
            time.sleep(0.05)
        yield found.group(), log, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _start(module: str, arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _resident_mb(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _zero(name: str, unit: str, found: int) -> Row:
    return Row(name, unit, float(found), 1.0, "none allowed", 0.0, "at most")


def _at_most(name: str, unit: str, value: float, limit: float) -> Row:
    return Row(name, unit, value, limit, "limit", 1.0, "at most")


if __name__ == "__main__":
    main(run, __doc__ or "")
