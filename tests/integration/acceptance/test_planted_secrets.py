"""Secrets that are planted in a running local stack are found only where they belong.

The stack is that of `tidal up` with its own PostgreSQL and Valkey, at log level debug. Every secret is a text that the
test can recognise (a mark). Jobs run, fail and are killed, the generator is used, and requests and logins are rejected.
Then the test searches for the marks in everything that others may see: log files, database rows, replies, metrics,
Flower's pages, and the command lines and environments of all processes. It also checks file permissions. The test does
not search Redis, because prompts are sent to the engine through streams in Redis. It does not search stored results of
analyses either.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from services.local.server_files import ServerState, free_port, write_state
from services.local.servers import PostgresServer, ValkeyServer
from tests.integration.acceptance.stack import ROOT, TINY_LM, long_job
from tests.integration.acceptance.tiny_model import MODEL, save_tiny_model
from tidal_client.local_instance import LocalInstance, read_instance

log = logging.getLogger(__name__)

TOKEN, FLOWER, DATABASE, REDIS = "mark-token-1f", "mark-flower-2e", "mark-database-3d", "mark-redis-4c"
CLOUD, HUB = "mark-cloud-5b", "mark-hub-6a"
PROMPT = "mark-prompt-77"
MARKS = {TOKEN, FLOWER, DATABASE, REDIS, CLOUD, HUB, PROMPT}
MAY_KNOW = {
    "supervisor": MARKS - {DATABASE, REDIS, PROMPT},  # inherits the environment of the user who starts the stack
    "api": {TOKEN, DATABASE, REDIS},
    "worker": {DATABASE, REDIS, HUB},
    "health": {DATABASE, REDIS},
    "generator": {REDIS},
    "engine": {REDIS},
    "flower": {FLOWER, REDIS},
    "trainer": {HUB},
    "postgres": set[str](),
    "valkey": set[str](),
}
"""{process: marks that its environment may contain}."""
SECONDS = 150.0
pytestmark = pytest.mark.timeout(400)


@dataclass
class Running:
    """A running stack. `replies` collects the replies that it has sent."""

    instance: LocalInstance
    http: httpx.Client
    flower: httpx.Client
    replies: list[str] = field(default_factory=list)

    def send(self, method: str, path: str, status: int, /, **options: Any) -> httpx.Response:
        reply = self.http.request(method, path, **options)
        assert reply.status_code == status, (path, reply.status_code, reply.text)
        self.replies.append(f"{reply.headers} {reply.text}")
        return reply

    def job(self, **body: Any) -> str:
        body = {"type": "lm-training", **body}
        return str(self.send("POST", "/api/jobs", 201, json=body).json()["id"])

    def until(self, job: str, status: str) -> dict[str, Any]:
        wait(f"{job} to be {status}", lambda: self._status(job) == status)
        return dict(self.send("GET", f"/api/jobs/{job}", 200).json())

    def _status(self, job: str) -> str:
        return str(self.http.get(f"/api/jobs/{job}").json()["status"])


def wait(what: str, check: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < until, f"waited {SECONDS:.0f} s for {what}"
        time.sleep(0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Create a stack's folder that everybody can read, as earlier versions did.

    The folder contains passwords for PostgreSQL and Valkey that the test has chosen.
    """
    path = tmp_path / "stack"
    (path / "logs").mkdir(parents=True)
    for name, password in (("postgres", DATABASE), ("valkey", REDIS)):
        write_state(path / name / "server.json", ServerState(free_port(), password))
    save_tiny_model(path / "experiments")
    for each in (path, path / "logs", path / "experiments"):
        each.chmod(0o755)
    yield path
    for server in (PostgresServer(path / "postgres"), ValkeyServer(path / "valkey")):
        server.remove()


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")},
        "PYTHONPATH": str(ROOT),
        "TIDAL_HOME": str(folder),
        "TIDAL_CALIBRATE": "false",
        "TIDAL_LOG_LEVEL": "debug",
        "TIDAL_LEASE_SECONDS": "6",
        "TIDAL_LEASE_RENEW_SECONDS": "1",
        "TIDAL_TRAINER_PAUSE_SECONDS": "4",
        "TIDAL_QUARANTINE_SECONDS": "1",
        "TIDAL_STOP_BUDGET_SECONDS": "30",
        "TIDAL_FLOWER_PORT": str(free_port()),
        "TIDAL_AUTH_TOKEN": TOKEN,
        "TIDAL_FLOWER_PASSWORD": FLOWER,
        "AWS_SECRET_ACCESS_KEY": CLOUD,
        "HF_TOKEN": HUB,
        "HF_HUB_OFFLINE": "1",
    }
    with (folder.parent / "up.log").open("wb") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "services.local", "up", "--port", "0", "--quiet"],
            cwd=folder.parent,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait("the stack", lambda: supervisor.poll() is not None or _ready(folder) is not None)
        instance = _ready(folder)
        assert instance is not None, (folder.parent / "up.log").read_text()
        assert instance.flower_url.endswith(environment["TIDAL_FLOWER_PORT"])
        with (
            httpx.Client(base_url=instance.api_url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http,
            httpx.Client(base_url=instance.flower_url, auth=("tidal", FLOWER), timeout=60) as flower,
        ):
            yield Running(instance, http, flower)
    finally:
        supervisor.send_signal(signal.SIGINT)
        supervisor.wait(60)


def _ready(folder: Path) -> LocalInstance | None:
    found = read_instance(folder)
    return found if found is not None and found.status == "ready" else None


def test_no_secret_is_found_where_it_does_not_belong(running: Running, folder: Path) -> None:
    trainer = _work(running)
    processes = _processes(running, trainer)
    assert processes.keys() == MAY_KNOW.keys()
    for name, pids in processes.items():
        for process in pids:
            found = _marks(_proc(process, "environ"))
            if name in ("supervisor", "postgres", "valkey", "trainer"):
                assert found <= MAY_KNOW[name], (name, found)
            else:
                assert found == MAY_KNOW[name], (name, found)
    ours = {process for pids in processes.values() for process in pids}
    for pid in psutil.pids():
        assert not _marks(_proc(pid, "cmdline")), _proc(pid, "cmdline")
        assert pid in ours or pid == os.getpid() or not _marks(_proc(pid, "environ")), _proc(pid, "cmdline")
    running.until(_stopped(running), "cancelled")

    searched = {"replies": "\n".join(running.replies), **_rows(running), **_pages(running), **_logs(folder)}
    log.info("characters searched: %s", {name: len(text) for name, text in searched.items()})
    assert {name: _marks(text) for name, text in searched.items() if _marks(text)} == {}
    assert "a token was rejected" in searched["log stack/logs/api.log"]
    assert "a login was rejected" in searched["log stack/logs/flower.log"]
    assert str(folder) not in searched["replies"], "no reply contains a path of the server"
    assert _open_to_others(folder) == []


def _work(running: Running) -> int:
    """Use every part of the stack, with valid and invalid requests. Return the pid of a running trainer."""
    text = {"checkpoint": MODEL, "prompt": PROMPT, "maxTokens": 4}
    # The stack is reported as ready while the generator is still loading torch.
    wait("a generator", lambda: running.http.post("/api/generate", json=text).status_code == 200)
    running.send("POST", "/api/generate", 200, json=text)
    streamed = running.http.post("/api/generate", json={**text, "stream": True})
    assert streamed.status_code == 200 and "event: done" in streamed.text
    running.send("POST", "/v1/completions", 200, json={"model": MODEL, "prompt": [PROMPT], "max_tokens": 4})
    analysis = {"checkpoint": MODEL, "prompts": [PROMPT], "maxTokens": 8, "gatingMode": "random"}
    assert running.http.post("/api/analyze-trajectories", json=analysis).status_code == 200

    damaged = Path(running.instance.experiments_dir) / MODEL
    (damaged.parent / "model_damaged.safetensors").write_bytes(b"no weights")
    wrong = {**text, "checkpoint": f"{damaged.parent.name}/model_damaged.safetensors"}
    running.send("POST", "/api/generate", 422, json=wrong)
    for body in ({**text, "temperature": "warm"}, {**text, "checkpoint": "no-such/final"}, {"prompt": [PROMPT]}):
        running.send("POST", "/api/generate", 422, json=body)
    running.send("POST", "/v1/completions", 400, json={"model": MODEL, "prompt": {"a": PROMPT}})
    for guess in ("guess", TOKEN + "x"):
        running.send("POST", "/api/jobs", 401, json={}, headers={"Authorization": f"Bearer {guess}"})
    running.send("POST", "/api/jobs", 422, json={"type": "lm-training", "config": {"training": {"max_steps": "x"}}})
    running.send("GET", "/api/jobs", 421, headers={"Host": "evil.example"})
    assert running.flower.get("/workers", auth=("tidal", FLOWER + "x")).status_code == 401

    running.until(running.job(config=TINY_LM), "completed")
    missing = running.job(config={**TINY_LM, "data": {"source": "missing.txt"}})
    failed = running.until(missing, "failed")
    assert "data/missing.txt" in failed["error"]["message"], failed["error"]
    job = running.job(config=long_job())
    running.until(job, "running")
    first = _trainer(running)
    os.kill(first, signal.SIGKILL)
    wait("another trainer", lambda: _trainer(running) not in (0, first) and running.until(job, "running") is not None)
    running.send("GET", f"/api/jobs/{job}/events", 200)
    return _trainer(running)


def _stopped(running: Running) -> str:
    [job] = [job["id"] for job in running.http.get("/api/jobs/active").json()["jobs"]]
    running.send("POST", f"/api/jobs/{job}/signal", 200, json={"signal": "stop"})
    return str(job)


def _trainer(running: Running) -> int:
    worker = psutil.Process(running.instance.processes["worker"].pid)
    for child in worker.children(recursive=True):
        with suppress(psutil.Error):
            if "services.trainer" in " ".join(child.cmdline()):
                return int(child.pid)
    return 0


def _processes(running: Running, trainer: int) -> dict[str, list[int]]:
    """Return {name of a process of the stack: pids of the process and its children}."""
    instance = read_instance(Path(running.instance.folder))
    assert instance is not None
    found = {"supervisor": [instance.pid], "trainer": [trainer]}
    for name, state in instance.processes.items():
        assert state.pid is not None, name
        children = [child.pid for child in psutil.Process(state.pid).children(recursive=True)]
        if name == "generator":
            found["engine"], children = children, []
        if name == "worker":
            children = []
        found[name] = [state.pid, *children]
    return found


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # The process has ended, or it belongs to another user.
        return ""


def _marks(text: str) -> set[str]:
    return {mark for mark in MARKS if mark in text}


def _rows(running: Running) -> dict[str, str]:
    """Return {table: all its rows as text}."""
    url = make_url(running.instance.database_url)
    assert url.password == DATABASE
    rows = {}
    with psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
    ) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            found = connection.execute(f'SELECT row_to_json(t)::text FROM "{table}" t').fetchall()
            rows[f"table {table}"] = "\n".join(row for (row,) in found)
    assert rows["table job_events"].count("\n") > 10
    return rows


def _pages(running: Running) -> dict[str, str]:
    """Return {page: its text} for the api's metrics, and for Flower's pages including its metrics."""
    pages = {"metrics of the api": running.http.get("/metrics").raise_for_status().text}
    workers = running.flower.get("/api/workers?refresh=1").raise_for_status().json()
    tasks = running.flower.get("/api/tasks").raise_for_status().json()
    assert len(workers) == 2 and len(tasks) >= 3
    paths = ["/metrics", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/queues/length"]
    paths += [f"/worker/{name}" for name in workers] + [f"/task/{task}" for task in tasks]
    for path in paths:
        pages[f"flower {path}"] = running.flower.get(path).raise_for_status().text
    return pages


def _logs(folder: Path) -> dict[str, str]:
    """Return {file: its text} for the logs and metrics archives of the services, servers and trainers."""
    files = [path for pattern in ("*.log", "*.log.*", "*.jsonl") for path in folder.parent.rglob(pattern)]
    found = {f"log {path.relative_to(folder.parent)}": path.read_text(errors="replace") for path in files}
    assert sum(name.endswith("/server.log") for name in found) == 2 and len(found) > 12, found.keys()
    return found


def _open_to_others(folder: Path) -> list[str]:
    """Return the paths in `folder` whose mode gives access to other users.

    If the mode of `folder` itself does, return only `folder`. The model that the test has written does not count.
    """
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return [str(folder)]
    kept = Path(MODEL).parts[0]
    return [
        str(path)
        for path in folder.rglob("*")
        if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o077 and kept not in path.parts
    ]
