"""Check that a local stack still serves requests after pauses of up to two minutes. All timers have their defaults.

The stack has a second api process. After each pause the benchmark sends four requests to each api: one with and one
without streaming to each of `/v1/completions` and `/api/generate`. The generator must return all requested tokens. The
first series has no interruptions. In the second series, the middle of each pause has one of these interruptions, in
turn: Redis is emptied, Redis is killed and started again, Redis is suspended for 3 s, idle database connections are
closed, an api is suspended for 15 s. One client keeps the event stream of all jobs open throughout, without receiving
an event. At the end `/api/queue` must still list the workers, and the event of a newly submitted job must arrive on
that stream. `--quick` uses fewer pauses.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import redis
from sqlalchemy import make_url

from bench.generation import default_model
from bench.idle_requests import CHECKPOINT, TOKENS, WAYS, data_of
from bench.local_stack import ROOT, RunningStack, local_stack
from bench.report import Row, main
from bench.serving import wait_until_ready
from common.checkpoint import save_model
from services.local.servers import ValkeyServer

PAUSES = (0.0, 6.0, 6.0, 13.0, 13.0, 13.0, 20.0, 31.0, 65.0, 130.0)
QUICK_PAUSES = (0.0, 6.0, 13.0)
STOPPED_REDIS_SECONDS = 3.0
STOPPED_API_SECONDS = 15.0


@dataclass
class Api:
    """An api process and an HTTP client for it."""

    name: str
    http: httpx.Client
    pid: int


@dataclass
class GenerationCounts:
    """Counts of requested and complete generations, and descriptions of the incomplete ones."""

    requested: int = 0
    complete: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, what: str, tokens: int, reason: str) -> None:
        """Count a generation, which is complete if it has all requested tokens."""
        self.requested += 1
        if (tokens, reason) == (TOKENS, "length"):
            self.complete += 1
        else:
            self.problems.append(f"{what}: {tokens} tokens, {reason}")


def run(quick: bool) -> list[Row]:
    """Run both series of requests, then check the idle stream and the workers."""
    pauses = QUICK_PAUSES if quick else PAUSES
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder, local_stack(Path(folder) / "instance") as stack:
        path = Path(stack.instance.experiments_dir) / CHECKPOINT
        path.parent.mkdir(parents=True)
        save_model(default_model(), path)
        wait_until_ready(stack)
        with _second_api(stack) as second, _client(stack.instance.api_url, stack) as http:
            apis = [Api("first api", http, stack.instance.processes["api"].pid or 0), second]
            listener = Listener(apis[1].http)
            counts = [_series(stack, apis, pauses, interrupted=interrupted) for interrupted in (False, True)]
            workers = _queues_with_workers(apis[0])
            events_received = _submission_reaches_listener(apis[0], listener)
    for problem in [problem for count in counts for problem in count.problems]:
        _print_progress(problem)
    return [
        Row(
            "generations after pauses, complete",
            "of all",
            counts[0].complete,
            counts[0].requested,
            "requested",
            1,
            "at least",
        ),
        Row(
            "generations after pauses with an interruption, complete",
            "of all",
            counts[1].complete,
            counts[1].requested,
            "requested",
            1,
            "at least",
        ),
        Row("queues for which /api/queue lists a worker at the end", "queues", workers, 1, "queues", 1, "at least"),
        Row("events of a submission received on the idle stream", "events", events_received, 1, "event", 1, "at least"),
    ]


def _series(stack: RunningStack, apis: list[Api], pauses: tuple[float, ...], *, interrupted: bool) -> GenerationCounts:
    counts = GenerationCounts()
    interruptions: list[tuple[str, Callable[[], object]]] = [
        ("Redis emptied", lambda: _redis(stack).flushall()),
        ("Redis killed and started again", lambda: _restart_redis(stack)),
        ("Redis suspended for 3 s", lambda: _stop_for(_redis_pid(stack), STOPPED_REDIS_SECONDS)),
        ("database connections closed", lambda: _end_database_connections(stack)),
        ("second api suspended for 15 s", lambda: _stop_for(apis[1].pid, STOPPED_API_SECONDS)),
    ]
    for number, pause in enumerate(pauses):
        description = f"after {pause:g} s"
        if interrupted:
            name, interrupt = interruptions[number % len(interruptions)]
            description += f" with {name}"
            time.sleep(pause / 2)
            interrupt()
            time.sleep(pause / 2)
        else:
            time.sleep(pause)
        _print_progress(description)
        for api in apis:
            for way, ask in WAYS.items():
                try:
                    tokens, reason = ask(api.http)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    tokens, reason = 0, repr(error)
                counts.add(f"{description}, {api.name}, {way}", tokens, reason)
    return counts


class Listener:
    """A client that keeps the event stream of all jobs open. `jobs` are the ids of the jobs in received events."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.jobs: set[str] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with self._http.stream("GET", "/api/jobs/stream", timeout=None) as reply:
            for data in data_of(reply):
                document = json.loads(data)
                if isinstance(document, dict) and "id" in document:
                    self.jobs.add(str(document["id"]))


def _submission_reaches_listener(api: Api, listener: Listener) -> int:
    config = {"data": {"source": "builtin:stories"}, "training": {"max_steps": 1}}
    reply = api.http.post("/api/jobs", json={"type": "lm-training", "config": config})
    if reply.status_code != 201:
        _print_progress(f"the submission failed: {reply.text}")
        return 0
    job_id = reply.json()["id"]
    until = time.monotonic() + 10
    while job_id not in listener.jobs and time.monotonic() < until:
        time.sleep(0.05)
    api.http.post(f"/api/jobs/{job_id}/cancel")
    return int(job_id in listener.jobs)


def _queues_with_workers(api: Api) -> int:
    board = api.http.get("/api/queue").raise_for_status().json()
    return sum(bool(queue["workers"]) for queue in board["queues"])


@contextmanager
def _second_api(stack: RunningStack) -> Iterator[Api]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    instance = stack.instance
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")},
        "TIDAL_DATABASE_URL": instance.database_url,
        "TIDAL_REDIS_URL": instance.redis_url,
        "TIDAL_EXPERIMENTS_DIR": instance.experiments_dir,
        "TIDAL_DATA_DIR": instance.data_dir,
        "TIDAL_AUTH_TOKEN": instance.token,
        "TIDAL_PORT": str(port),
    }
    with (Path(instance.logs_dir) / "second-api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.api"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        with _client(f"http://127.0.0.1:{port}", stack) as http:
            until = time.monotonic() + 60
            while not _is_ready(http):
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError("the second api did not start")
                time.sleep(0.1)
            yield Api("second api", http, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _client(url: str, stack: RunningStack) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {stack.instance.token}"}, timeout=130)


def _redis(stack: RunningStack) -> redis.Redis:
    return redis.Redis.from_url(stack.instance.redis_url, socket_timeout=5)


def _redis_pid(stack: RunningStack) -> int:
    return int((Path(stack.instance.folder) / "valkey" / "valkey.pid").read_text())


def _restart_redis(stack: RunningStack) -> None:
    os.kill(_redis_pid(stack), signal.SIGKILL)
    time.sleep(1.0)
    ValkeyServer(Path(stack.instance.folder) / "valkey").start()


def _stop_for(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _end_database_connections(stack: RunningStack) -> None:
    url = make_url(stack.instance.database_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle' AND pid <> pg_backend_pid()"
        )


def _print_progress(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main(run, __doc__)
