"""What a claim costs while 2,000 jobs wait, and what a page of the list costs meanwhile.

Four claimers in processes of their own, against a PostgreSQL of this run with its usual durability. Each takes turns
between a claim without limits and a bare update of one row, timed from the first statement to the end of the commit,
so that the machine's own share is seen; then between claims of a type with a limit and bare updates. The pages are
timed after the claimers, over HTTP and inside the api's operation.
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
"""Seconds: a claim without limits, a bare update beside it, a claim with a limit, a bare update beside that."""


def run(quick: bool) -> list[Row]:
    """75 claims of each kind per process (25 when quick) while about 2,000 jobs wait; 200 pages (50)."""
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
        _promise(f"claim with {WAITING} waiting, {CLAIMERS} processes, p50", _p(claimed, 50), CLAIM_MILLISECONDS),
        _promise(f"claim with {WAITING} waiting, {CLAIMERS} processes, p99", _p(claimed, 99), CLAIM_MILLISECONDS),
        *(_against("claim", claimed, bare, "bare update and commit", percent, 10.0) for percent in (50, 99)),
        _against("claim with a limit", limited, claimed, "claim without", 50, 6.0),
        *(
            _promise(f"page of {PAGE} jobs {where}, p{percent}", _p(seconds, percent), PAGE_MILLISECONDS)
            for where, seconds in (("in the operation", inside), ("over HTTP", outside))
            for percent in (50, 99)
        ),
    ]


def _against(name: str, ours: list[float], reference: list[float], what: str, percent: int, bound: float) -> Row:
    label = f"{name} beside a {what}, p{percent}"
    return Row(label, "ms", _p(ours, percent), _p(reference, percent), what, bound, "at most")


def _promise(name: str, ours: float, bound: float) -> Row:
    return Row(name, "ms", ours, bound, "promise", 1.0, "at most")


def _p(values: list[float], percent: int) -> float:
    """That percentile, in ms."""
    if percent == 50:
        return 1000 * statistics.median(values)
    return 1000 * sorted(values)[int(percent / 100 * (len(values) - 1))]


def _fill(url: str, jobs: int) -> None:
    """One job submitted as always, the others copied from it."""
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
    """All claimers at once; what each turn took."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(CLAIMERS)
    with context.Pool(CLAIMERS, initializer=_keep, initargs=(gate,)) as pool:
        results = pool.starmap(_claimer, [(url, number + 1, claims) for number in range(CLAIMERS)], chunksize=1)
    return [turn for times in results for turn in times]


_gate: list[Barrier] = []


def _keep(gate: Barrier) -> None:
    _gate.append(gate)


def _claimer(url: str, number: int, claims: int) -> Times:
    """In a process of its own: claims and bare update in turn."""
    open_settings, limited_settings = (
        Settings(_env_file=None, lm_training_concurrency=n, rl_training_concurrency=n, other_concurrency=n)
        for n in (0, 10 * WAITING)
    )
    engine = make_engine(url, pool_size=1)
    sessions = session_factory(engine)

    def take(session: Session, settings: Settings) -> None:
        if claim_job(session, "training", f"worker-{number}", settings) is None:
            raise RuntimeError("nothing to claim")

    def one_claim(session: Session) -> None:
        take(session, open_settings)

    def one_limited(session: Session) -> None:
        take(session, limited_settings)

    def one_update(session: Session) -> None:
        session.execute(text("UPDATE bare SET n = n + 1 WHERE id = :id"), {"id": number})

    def timed(work: Callable[[Session], None]) -> float:
        started = time.perf_counter()
        with sessions.begin() as session:
            work(session)
        return time.perf_counter() - started

    for work in (one_claim, one_limited, one_update):  # connection, caches, compiled statements
        timed(work)
    _gate[0].wait()
    unlimited = [(timed(one_claim), timed(one_update)) for _ in range(claims)]
    _gate[0].wait()
    limited = [(timed(one_limited), timed(one_update)) for _ in range(claims)]
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
    """Workers that beat and jobs that have finished, so that a page predicts when each of its jobs will start."""
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
    """The api as a process of its own; yields a function that asks it for a page."""
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

            def ask() -> object:
                page = json.loads(client.get("/api/jobs", params={"limit": PAGE}).raise_for_status().content)
                if not all(job["queuePosition"] for job in page["jobs"] if job["status"] == "pending"):
                    raise RuntimeError("the page lacks places")
                return page

            yield ask
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
