"""Retention deletes only logs and metrics of jobs that ended long ago. It keeps those that another job reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore
from common.config import PROJECT_ROOT
from common.db import Experiment, Job
from common.errors import StorageError
from common.jobs.retention import delete_expired_archives, find_expired_archives
from tests.integration.jobs.ended_jobs import ALL, ended, furnish, names
from tests.integration.jobs.ended_jobs import store as store
from tests.integration.jobs.health_process import environment
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus

S = JobStatus


def test_jobs_that_ended_long_ago_lose_logs_and_metrics_with_an_event(
    job_queue: JobQueue, store: ArtifactStore, engine: Engine
) -> None:
    old = [ended(job_queue, store, status, 31) for status in (S.COMPLETED, S.FAILED, S.CANCELLED)]
    young, young_folder = ended(job_queue, store, S.COMPLETED, 29)
    with job_queue.sessions() as session:
        found = find_expired_archives(session, store, 30)
    assert sorted(one.job_id for one in found) == sorted(job_id for job_id, _ in old)
    assert {one.size_bytes for one in found} == {300}
    assert all(names(folder) == ALL for _, folder in old)  # `find_expired_archives` deletes nothing

    assert delete_expired_archives(engine, store, 30) == found
    for job_id, folder in old:
        assert names(folder) == ALL - {"logs", "metrics"}
        assert job_queue.history(job_id)[-1] == ("archive_deleted", None, None)
    details = job_queue.rows("SELECT details FROM job_events WHERE event = 'archive_deleted'")
    assert {json.dumps(row[0]["bytes"]) for row in details} == {"300"}
    assert names(young_folder) == ALL and "archive_deleted" not in str(job_queue.history(young))
    assert [path for path in store.root.iterdir() if path.name.startswith(".")] == []
    assert delete_expired_archives(engine, store, 30) == []


def test_unfinished_read_and_imported_experiments_are_kept(
    job_queue: JobQueue, store: ArtifactStore, engine: Engine
) -> None:
    source, source_folder = ended(job_queue, store, S.COMPLETED, 100)
    parent, parent_folder = ended(job_queue, store, S.CANCELLED, 100)
    kept = [furnish(job_queue, store, job_queue.bring(status)) for status in (S.PAUSED, S.PENDING)]
    reader, child = job_queue.submit("rl-training"), job_queue.submit()
    with job_queue.sessions.begin() as session:
        experiment = session.get_one(Experiment, session.get_one(Job, reader).experiment_id)
        experiment.source_experiment_id = session.get_one(Job, source).experiment_id
        session.get_one(Job, child).parent_id = parent
        session.add(Experiment(id="imported-1", type="lm", imported=True, config={}))
    (store.experiment("imported-1") / "metrics").mkdir(parents=True)
    assert delete_expired_archives(engine, store, 1) == []
    assert all(names(folder) == ALL for folder in (*kept, source_folder, parent_folder))
    assert (store.experiment("imported-1") / "metrics").is_dir()


def test_a_locked_row_is_left_for_the_next_round(job_queue: JobQueue, store: ArtifactStore, engine: Engine) -> None:
    job_id, folder = ended(job_queue, store, S.COMPLETED, 5)
    with Session(engine) as session, session.begin():
        session.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        assert delete_expired_archives(engine, store, 1) == []
        assert names(folder) == ALL
    assert [one.job_id for one in delete_expired_archives(engine, store, 1)] == [job_id]


def test_a_missing_store_is_an_error(job_queue: JobQueue, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no artifact store"):
        delete_expired_archives(engine, ArtifactStore(tmp_path / "not-mounted"), 1)


def test_files_that_a_kill_left_after_their_renaming_are_removed(store: ArtifactStore) -> None:
    (store.root / "e1" / "logs").mkdir(parents=True)
    doomed = store.detach("e1", "logs")
    assert doomed is not None and doomed.is_dir() and store.detach("e1", "logs") is None
    assert store.discard_leftovers(3600) == 0 and doomed.is_dir()
    assert store.discard_leftovers(-1) == 1 and not doomed.exists()


def test_health_deletes_and_the_dry_run_only_lists(
    job_queue: JobQueue, store: ArtifactStore, database_url: str, redis_url: str
) -> None:
    job_id, folder = ended(job_queue, store, S.COMPLETED, 3)
    variables = environment(database_url, redis_url) | {"TIDAL_EXPERIMENTS_DIR": str(store.root)}
    command = [sys.executable, "-m", "services.cli", "db", "retention", "--days", "2", "--dry-run"]
    listed = subprocess.run(command, cwd=PROJECT_ROOT, env=variables, capture_output=True, text=True, check=True)
    assert job_queue.job(job_id).experiment_id in listed.stdout and "would be freed" in listed.stdout
    assert names(folder) == ALL

    process = subprocess.Popen(
        [sys.executable, "-m", "services.health"],
        cwd=PROJECT_ROOT,
        env=variables | {"TIDAL_RETENTION_DAYS": "2", "TIDAL_LOG_FORMAT": "text"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any("deleted by retention" in line for line in process.stdout)
    finally:
        process.kill()
        process.communicate()
    assert names(folder) == ALL - {"logs", "metrics"}
