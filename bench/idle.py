"""The product at a person's pace: pauses of up to two minutes, with every timer at its default.

A local stack with a second api process. Pauses as listed below, and after each one generation as a whole and one as a
stream from each api, over `/v1/completions` and `/api/generate`; end-of-text is forbidden, so each has to have all its
tokens. The first series is left in peace. In the second, each pause has an interruption in its middle, in turn: Redis
is emptied, killed and started again, stopped for 3 s, the idle database connections are ended, an api is stopped for
15 s. Beside them a live stream stays open without an event, workers have to stay on the board, and at the end a job is
submitted and heard of on that stream. `--quick`: the first pauses only.
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
from bench.serving import first
from common.checkpoint import save_model
from services.local.servers import ValkeyServer

PAUSES = (0.0, 6.0, 6.0, 13.0, 13.0, 13.0, 20.0, 31.0, 65.0, 130.0)
QUICK_PAUSES = (0.0, 6.0, 13.0)
STOPPED_REDIS_SECONDS = 3.0
STOPPED_API_SECONDS = 15.0


@dataclass
class Api:
    """One api process as a client knows it."""

    name: str
    http: httpx.Client
    pid: int


@dataclass
class Counts:
    """What came back, and what came late or short."""

    asked: int = 0
    whole: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, what: str, tokens: int, reason: str) -> None:
        """One generation."""
        self.asked += 1
        if (tokens, reason) == (TOKENS, "length"):
            self.whole += 1
        else:
            self.problems.append(f"{what}: {tokens} tokens, {reason}")


def run(quick: bool) -> list[Row]:
    """Both series and what lay idle beside them."""
    pauses = QUICK_PAUSES if quick else PAUSES
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder, local_stack(Path(folder) / "instance") as stack:
        path = Path(stack.instance.experiments_dir) / CHECKPOINT
        path.parent.mkdir(parents=True)
        save_model(default_model(), path)
        first(stack)
        with _second_api(stack) as second, _client(stack.instance.api_url, stack) as http:
            apis = [Api("first api", http, stack.instance.processes["api"].pid or 0), second]
            listener = Listener(apis[1].http)
            counts = [_series(stack, apis, pauses, disturbed=disturbed) for disturbed in (False, True)]
            workers = _queues_with_workers(apis[0])
            heard = _submission_is_heard(apis[0], listener)
    for problem in [its for count in counts for its in count.problems]:
        _say(problem)
    return [
        Row("generations after pauses, complete", "of all", counts[0].whole, counts[0].asked, "asked", 1, "at least"),
        Row(
            "generations after pauses with an interruption, complete",
            "of all",
            counts[1].whole,
            counts[1].asked,
            "asked",
            1,
            "at least",
        ),
        Row("queues whose worker is on the board afterwards", "queues", workers, 1, "queues", 1, "at least"),
        Row("submission heard on the stream that was idle", "events", heard, 1, "event", 1, "at least"),
    ]


def _series(stack: RunningStack, apis: list[Api], pauses: tuple[float, ...], *, disturbed: bool) -> Counts:
    counts = Counts()
    interruptions: list[tuple[str, Callable[[], None]]] = [
        ("Redis emptied", lambda: _redis(stack).flushall()),
        ("Redis killed and started", lambda: _restart_redis(stack)),
        ("Redis stopped for 3 s", lambda: _stop_for(_redis_pid(stack), STOPPED_REDIS_SECONDS)),
        ("database connections ended", lambda: _end_database_connections(stack)),
        ("second api stopped for 15 s", lambda: _stop_for(apis[1].pid, STOPPED_API_SECONDS)),
    ]
    for number, pause in enumerate(pauses):
        said = f"after {pause:g} s"
        if disturbed:
            name, interrupt = interruptions[number % len(interruptions)]
            said += f" with {name}"
            time.sleep(pause / 2)
            interrupt()
            time.sleep(pause / 2)
        else:
            time.sleep(pause)
        _say(said)
        for api in apis:
            for way, ask in WAYS.items():
                try:
                    tokens, reason = ask(api.http)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    tokens, reason = 0, repr(error)
                counts.add(f"{said}, {api.name}, {way}", tokens, reason)
    return counts


class Listener:
    """A client of the stream of all jobs that stays connected; `jobs` are the ids it has heard of."""

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


def _submission_is_heard(api: Api, listener: Listener) -> int:
    config = {"data": {"source": "builtin:stories"}, "training": {"max_steps": 1}}
    reply = api.http.post("/api/jobs", json={"type": "lm-training", "config": config})
    if reply.status_code != 201:
        _say(f"the submission failed: {reply.text}")
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
            while not _ready(http):
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError("the second api did not start")
                time.sleep(0.1)
            yield Api("second api", http, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _ready(http: httpx.Client) -> bool:
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


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main(run, __doc__)
