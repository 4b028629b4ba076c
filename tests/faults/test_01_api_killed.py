"""Faults 1 and 2 of 31: the api is killed while it handles a submission.

In fault 1, it has committed the job and not yet published the notification. In fault 2, it has not committed the job,
and the client repeats its request.
"""

from __future__ import annotations

import contextlib
import random
import signal
import uuid

import httpx
from sqlalchemy import func, select

from common.db import Job
from services.local.servers import free_port
from tests.faults.fault_workers import FaultWorkers

TOKEN = "token-of-this-test"
BODY = {"type": "lm-training", "config": {"data": {"source": "builtin:stories"}}}


class Api:
    """The api process of a test. A restarted api has the same port."""

    def __init__(self, workers: FaultWorkers) -> None:
        self.workers, self.port = workers, free_port()

    def start(self, dies_at: str | None = None) -> None:
        environment = {"TIDAL_HOST": "127.0.0.1", "TIDAL_PORT": str(self.port), "TIDAL_AUTH_TOKEN": TOKEN}
        if dies_at is None:
            self.workers.start("api", "services.api", **environment)
        else:
            self.workers.start("api", "tests.faults.dying", DIES_AT=dies_at, **environment)
        self.workers.wait_for(self.ready, "the api to be ready", 60)

    def ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        return False

    def submit(self, key: str | None = None) -> httpx.Response | None:
        """Submit a job and return the reply; None if the api ended before it replied."""
        headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Idempotency-Key": key} if key else {})
        with contextlib.suppress(httpx.TransportError):
            return httpx.post(f"http://127.0.0.1:{self.port}/api/jobs", json=BODY, headers=headers, timeout=60)
        return None

    def died(self) -> bool:
        return self.workers.processes["api"].wait(20) == -signal.SIGKILL


def jobs_of(workers: FaultWorkers) -> int:
    with workers.sessions() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def test_fault_01_a_job_committed_by_an_api_that_published_nothing_is_run(workers: FaultWorkers) -> None:
    workers.processes["health"].terminate()
    workers.processes["health"].wait(20)
    workers.worker()
    api = Api(workers)
    api.start("before_publish")
    assert api.submit() is None and api.died()
    with workers.sessions() as session:
        job_id = session.scalars(select(Job.id)).one()
    assert workers.statuses(job_id) == ["pending"]
    workers.start("health", "services.health")
    workers.wait_status(job_id, "completed", seconds=workers.timers.patience)
    assert workers.job(job_id).attempt == 1


def test_fault_02_a_request_repeated_after_the_api_died_is_one_job(workers: FaultWorkers, rng: random.Random) -> None:
    workers.worker()
    api, key = Api(workers), str(uuid.UUID(int=rng.getrandbits(128)))
    deaths = ["before_commit", *rng.choices(["before_commit", "before_publish"], k=1)]
    for dies_at in deaths:
        api.start(dies_at)
        assert api.submit(key) is None and api.died()
        assert jobs_of(workers) == (dies_at == "before_publish")
    api.start()
    replies = [api.submit(key) for _ in range(3)]
    ids = {reply.json()["id"] for reply in replies if reply is not None and reply.status_code == 201}
    assert len(ids) == 1 and None not in replies
    assert jobs_of(workers) == 1
    workers.wait_status(ids.pop(), "completed", seconds=workers.timers.patience)
