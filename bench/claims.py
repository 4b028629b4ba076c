"""Measure how long it takes to claim a job and to list a page of jobs while 2,000 jobs wait.

Four processes claim jobs from a PostgreSQL server that this benchmark starts with its default durability settings. Each
process alternates between a claim and a plain UPDATE of one row. Both are timed from the first statement to the end of
the commit; the UPDATE shows how much of the time is due to the machine. In the first series the concurrency of job
types is unlimited, in the second it is limited. Afterwards the pages are timed, over HTTP and by a direct call of the
api's function.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import httpx
import redis
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from bench.local_stack import ROOT
from bench.report import Row, main
from common.config import Settings
from common.db import Job, make_engine, session_factory, upgrade
from common.jobs.queue import NewJob, claim_job, complete_job, enqueue_job
from common.redis import keys
from services.api.operations.jobs import jobs_page
from services.api.workers import Outlook, WorkerCache
from services.local.servers import PostgresServer, ValkeyServer, free_port
from tidal_client.vocabulary import JobType

WAITING = 2000
CLAIMERS = 4
PAGE = 50
CLAIM_MILLISECONDS = 100.0
PAGE_MILLISECONDS = 50.0
COPY = """
INSERT INTO experiments (id, type, config)
SELECT 'bench-' || n, type, config FROM experiments, generate_series(2, :n) n;
INSERT INTO jobs (id, type, queue, payload, experiment_id, priority, created_at)
SELECT 'job_' || n, type, queue, payload, 'bench-' || n, n % 5, now() - make_interval(secs => n)
FROM jobs, generate_series(2, :n) n
"""
Times = list[tuple[float, float, float, float]]
"""Tuples of seconds: (claim without limits, plain update after it, claim with limits, plain update after it)."""


def run(quick: bool) -> list[Row]:
    """Time 200 pages, and per process 75 claims without limits and 75 with limits.

    When `quick`, time 50 pages, and 25 claims of each kind.
    """
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
        postgres, valkey = PostgresServer(Path(folder) / "postgres"), ValkeyServer(Path(folder) / "valkey")
        try:
            postgres.start()
            valkey.start()
            upgrade(postgres.url)
            claims = 25 if quick else 75
            _fill(postgres.url, WAITING + CLAIMERS * claims)
            columns = zip(*_race(postgres.url, claims), strict=True)
            claimed, bare, limited, _ = (list(seconds) for seconds in columns)
            pages = 50 if quick else 200
            _make_predictable(postgres.url, valkey.url)
            inside = _timed(_page_reader(postgres.url, valkey.url), pages)
            with _api(postgres.url, valkey.url, Path(folder)) as over_http:
                outside = _timed(over_http, pages)
        finally:
            valkey.remove()
            postgres.remove()
    return [
        _limit_row(
            f"claim while {WAITING} jobs wait, {CLAIMERS} processes, p50", _percentile(claimed, 50), CLAIM_MILLISECONDS
        ),
        _limit_row(
            f"claim while {WAITING} jobs wait, {CLAIMERS} processes, p99", _percentile(claimed, 99), CLAIM_MILLISECONDS
        ),
        *(_compared_with("claim", claimed, bare, "plain update and commit", percent, 10.0) for percent in (50, 99)),
        _compared_with("claim with concurrency limits", limited, claimed, "claim without limits", 50, 6.0),
        *(
            _limit_row(f"page of {PAGE} jobs {where}, p{percent}", _percentile(seconds, percent), PAGE_MILLISECONDS)
            for where, seconds in (("by a direct call", inside), ("over HTTP", outside))
            for percent in (50, 99)
        ),
    ]


def _compared_with(name: str, ours: list[float], reference: list[float], what: str, percent: int, bound: float) -> Row:
    label = f"{name}, reference {what}, p{percent}"
    return Row(label, "ms", _percentile(ours, percent), _percentile(reference, percent), what, bound, "at most")


def _limit_row(name: str, ours: float, bound: float) -> Row:
    return Row(name, "ms", ours, bound, "limit", 1.0, "at most")


def _percentile(values: list[float], percent: int) -> float:
    """Return a percentile of `values` (seconds) in milliseconds."""
    if percent == 50:
        return 1000 * statistics.median(values)
    return 1000 * sorted(values)[int(percent / 100 * (len(values) - 1))]


def _fill(url: str, jobs: int) -> None:
    """Submit one job through `enqueue_job` and copy its rows until there are `jobs` jobs."""
    engine = make_engine(url)
    with session_factory(engine).begin() as session:
        enqueue_job(session, NewJob(type=JobType.LM_TRAINING, payload={"config": {}}))
        for statement in COPY.split(";"):
            session.execute(text(statement), {"n": jobs})
        session.execute(text("CREATE TABLE bare (id int PRIMARY KEY, n int)"))
        session.execute(text("INSERT INTO bare SELECT n, 0 FROM generate_series(1, :n) n"), {"n": CLAIMERS})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    engine.dispose()


def _race(url: str, claims: int) -> Times:
    """Run all claiming processes at the same time. Return their times, one tuple per repetition."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(CLAIMERS)
    with context.Pool(CLAIMERS, initializer=_store_barrier, initargs=(gate,)) as pool:
        results = pool.starmap(_claimer, [(url, number + 1, claims) for number in range(CLAIMERS)], chunksize=1)
    return [turn for times in results for turn in times]


_gate: list[Barrier] = []


def _store_barrier(gate: Barrier) -> None:
    _gate.append(gate)


def _claimer(url: str, number: int, claims: int) -> Times:
    """Alternate between claims and plain updates. This function runs in a child process."""
    open_settings, limited_settings = (
        Settings(_env_file=None, lm_training_concurrency=n, rl_training_concurrency=n, other_concurrency=n)
        for n in (0, 10 * WAITING)
    )
    engine = make_engine(url, pool_size=1)
    sessions = session_factory(engine)

    def take(session: Session, settings: Settings) -> None:
        if claim_job(session, "training", f"worker-{number}", settings) is None:
            raise RuntimeError("there was no job to claim")

    def claim_without_limits(session: Session) -> None:
        take(session, open_settings)

    def claim_with_limit(session: Session) -> None:
        take(session, limited_settings)

    def update_bare_row(session: Session) -> None:
        session.execute(text("UPDATE bare SET n = n + 1 WHERE id = :id"), {"id": number})

    def timed(work: Callable[[Session], None]) -> float:
        started = time.perf_counter()
        with sessions.begin() as session:
            work(session)
        return time.perf_counter() - started

    # Open the connection and fill caches before the first measurement.
    for work in (claim_without_limits, claim_with_limit, update_bare_row):
        timed(work)
    _gate[0].wait()
    unlimited = [(timed(claim_without_limits), timed(update_bare_row)) for _ in range(claims)]
    _gate[0].wait()
    limited = [(timed(claim_with_limit), timed(update_bare_row)) for _ in range(claims)]
    engine.dispose()
    return [(*first, *second) for first, second in zip(unlimited, limited, strict=True)]


def _timed(work: Callable[[], object], times: int) -> list[float]:
    work()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def _make_predictable(url: str, redis_url: str) -> None:
    """Add workers' heartbeats and finished jobs, from which the api predicts when each listed job will start."""
    engine = make_engine(url)
    with session_factory(engine).begin() as session:
        for job in session.scalars(select(Job).where(Job.attempt == 1).limit(5)):
            complete_job(session, job.id, 1)
    engine.dispose()
    with redis.Redis.from_url(redis_url) as client:
        for number in range(CLAIMERS):
            beat = {"worker": f"worker-{number}", "queue": "training", "state": "busy"}
            client.hset(keys.heartbeat(f"worker-{number}"), mapping=beat)
            client.zadd(keys.WORKERS, {f"worker-{number}": 0})


def _page_reader(url: str, redis_url: str) -> Callable[[], object]:
    sessions = session_factory(make_engine(url, pool_size=1))
    outlook = Outlook(Settings(_env_file=None), WorkerCache(redis_url))

    def read() -> str:
        with sessions() as session:
            return jobs_page(session, outlook, limit=PAGE, cursor=None).model_dump_json(by_alias=True)

    return read


@contextlib.contextmanager
def _api(url: str, redis_url: str, folder: Path) -> Iterator[Callable[[], object]]:
    """Start the api as a process. Yield a function that requests a page of jobs from the api."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")},
        "TIDAL_DATABASE_URL": url,
        "TIDAL_REDIS_URL": redis_url,
        "TIDAL_PORT": str(port),
        "TIDAL_EXPERIMENTS_DIR": str(folder / "experiments"),
        "TIDAL_AUTH_TOKEN": "token-of-the-benchmark",
    }
    process = subprocess.Popen([sys.executable, "-m", "services.api"], cwd=ROOT, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _until_ready(client, process)

            def request_page() -> object:
                page = json.loads(client.get("/api/jobs", params={"limit": PAGE}).raise_for_status().content)
                if not all(job["queuePosition"] for job in page["jobs"] if job["status"] == "pending"):
                    raise RuntimeError("pending jobs on the page have no queue position")
                return page

            yield request_page
    finally:
        process.terminate()
        process.wait(30)


def _until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1500):
        if process.poll() is not None:
            raise RuntimeError(f"the api ended with status {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if client.get("/healthz").status_code == 200:
                return
        time.sleep(0.02)
    raise RuntimeError("the api was not ready within 30 s")


if __name__ == "__main__":
    main(run, __doc__)
