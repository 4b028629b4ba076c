"""An analysis job has one row for its result. Only its owner writes the row, and it is deleted with the experiment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from common.artifacts import ArtifactStore
from common.child.protocol import ArtifactSaved
from common.db import downgrade, make_engine, upgrade
from common.errors import LeaseLostError
from common.jobs.queue import register_analysis, release_job
from common.redis.live_feed import LiveFeed
from services.worker.child_reports import ChildReports
from services.worker.claimed_job import ClaimedJob
from services.worker.progress import ProgressWatch
from services.worker.row_writer import RowWriter
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus


def result(seed: int) -> dict[str, Any]:
    """Return a result with a token that PostgreSQL's jsonb would reject."""
    return {"kind": "single", "request": {"seed": seed}, "trajectories": [{"tokenTexts": ["\x00", "é"]}]}


def test_an_analysis_reported_twice_is_one_row_with_the_newest_result(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING, "analysis")
    job_queue.do(register_analysis, job_id, 1, result=result(1))
    job_queue.do(register_analysis, job_id, 1, result=result(1))
    job_queue.do(release_job, job_id, 1)
    second = job_queue.claim("worker-2")
    assert second is not None and second.attempt == 2
    job_queue.do(register_analysis, job_id, 2, result=result(2))
    [(experiment, kind, seed, stored)] = job_queue.rows(
        "SELECT experiment_id, kind, request ->> 'seed', result::text FROM analyses"
    )
    assert (experiment, kind, seed) == (job_queue.job(job_id).experiment_id, "single", "2")
    assert '["\\u0000", "\\u00e9"]' in stored


def test_an_attempt_that_lost_its_lease_saves_nothing(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING, "analysis")
    job_queue.do(release_job, job_id, 1)
    with pytest.raises(LeaseLostError):
        job_queue.do(register_analysis, job_id, 1, result=result(1))
    assert job_queue.rows("SELECT id FROM analyses") == []


def test_an_analysis_is_deleted_with_its_experiment(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING, "analysis")
    job_queue.do(register_analysis, job_id, 1, result=result(1))
    job_queue.do(lambda session: session.execute(text("DELETE FROM experiments")))
    assert job_queue.rows("SELECT id FROM analyses") == []


def test_the_migration_can_be_reverted_while_analyses_exist(job_queue: JobQueue, database_url: str) -> None:
    kept = job_queue.bring(JobStatus.RUNNING)
    job_queue.do(register_analysis, job_queue.bring(JobStatus.RUNNING, "analysis"), 1, result=result(1))
    downgrade(database_url, "0002")
    engine = make_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id, type FROM jobs")).all() == [(kept, "lm-training")]
        assert connection.scalar(text("SELECT to_regclass('analyses')")) is None
    engine.dispose()
    upgrade(database_url)
    assert job_queue.rows("SELECT id FROM analyses") == []


@pytest.fixture
def feed(redis_url: str) -> Iterator[LiveFeed]:
    """Return a worker's `LiveFeed`."""
    opened = LiveFeed(redis_url, stream_max_length=10)
    yield opened
    opened.close()


def reports(job_queue: JobQueue, job_id: str, writer: RowWriter, feed: LiveFeed) -> ChildReports:
    """Return the object with which a worker handles the messages of the job's trainer."""
    store = ArtifactStore(job_queue.settings.experiments_dir)
    watch = ProgressWatch(0, floor_seconds=60, phase_seconds=60)
    return ChildReports(
        ClaimedJob.of(job_queue.job(job_id), claimed_at=0), writer, feed, store, watch, time.monotonic()
    )


def test_no_transaction_waits_for_the_file_of_an_analysis(job_queue: JobQueue, feed: LiveFeed) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING, "analysis")
    path = job_queue.settings.experiments_dir / job_queue.job(job_id).experiment_id / "analysis_results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(result(7)))
    writer = RowWriter(job_queue.sessions)
    hearing = reports(job_queue, job_id, writer, feed)
    event.listen(job_queue.sessions, "after_begin", lambda *_: path.unlink(missing_ok=True))
    hearing.handle(ArtifactSaved(name=path.name, kind="analysis"), time.monotonic())
    writer.close()
    assert job_queue.rows("SELECT request ->> 'seed' FROM analyses") == [("7",)]
    assert not path.exists()


def test_an_analysis_that_cannot_be_read_ends_no_worker(job_queue: JobQueue, feed: LiveFeed) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING, "analysis")
    path = job_queue.settings.experiments_dir / job_queue.job(job_id).experiment_id / "analysis_results.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"kind": "sin')
    writer = RowWriter(job_queue.sessions)
    reports(job_queue, job_id, writer, feed).handle(ArtifactSaved(name=path.name, kind="analysis"), time.monotonic())
    writer.close()
    assert job_queue.rows("SELECT id FROM analyses") == []
    assert job_queue.rows("SELECT name FROM checkpoints") == [("analysis_results.json",)]
