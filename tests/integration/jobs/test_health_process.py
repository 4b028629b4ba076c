"""The health process publishes the outbox, reaps, sends heartbeats, survives lost connections, and stops on SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import text

from common.config import PROJECT_ROOT
from common.redis import keys
from common.redis.keys import HEALTH
from tests.integration.jobs.health_process import environment
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus

S = JobStatus


@pytest.fixture
def health(database_url: str, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "services.health"], cwd=PROJECT_ROOT, env=environment(database_url, redis_url)
    )
    yield process
    process.kill()
    process.wait()


def next_status(client: redis.Redis, last: str, wanted: str) -> str:
    """Read the stream of job events from `last` up to a job-update with the status `wanted`.

    Return the position of this job-update.
    """
    deadline = time.monotonic() + 60  # a process starts slowly on a busy machine
    while True:
        answer: Any = client.xread({keys.JOBS_STREAM: last}, block=5000, count=1)
        assert answer or time.monotonic() < deadline, f"no job-update with {wanted}"
        if not answer:
            continue
        ((last, fields),) = answer[0][1]
        if f'"status": "{wanted}"' in fields["data"]:
            return last


def test_it_relays_reaps_sends_heartbeats_and_stops(
    job_queue: JobQueue, health: subprocess.Popen[bytes], redis_client: redis.Redis
) -> None:
    job_id = job_queue.bring(S.RUNNING)
    position = next_status(redis_client, "0", "running")
    job_queue.lapse(job_id, 1)
    position = next_status(redis_client, position, "stale")
    next_status(redis_client, position, "pending")
    beat: Any = redis_client.hgetall(HEALTH)
    assert (beat["pid"], beat["database"]) == (str(health.pid), "ok")
    assert 0 < redis_client.ttl(HEALTH) < 60
    health.send_signal(signal.SIGTERM)
    assert health.wait(timeout=10) == 0


def test_it_survives_the_loss_of_every_connection(
    job_queue: JobQueue, health: subprocess.Popen[bytes], redis_client: redis.Redis
) -> None:
    job_queue.submit()
    position = next_status(redis_client, "0", "pending")
    with job_queue.sessions.begin() as session:
        cut = session.scalars(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'tidal-health' AND datname = current_database()"
            )
        ).all()
    assert len(cut) >= 1
    redis_client.client_kill_filter(_type="normal", skipme=True)
    job_queue.claim()
    next_status(redis_client, position, "provisioning")
    assert health.poll() is None


def test_with_an_unmigrated_database_it_exits_and_names_the_remedy(empty_database_url: str, redis_url: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "services.health"],
        cwd=PROJECT_ROOT,
        env=environment(empty_database_url, redis_url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 1
    assert "tidal db migrate" in finished.stderr
