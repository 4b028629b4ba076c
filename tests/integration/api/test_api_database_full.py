"""If the disk of PostgreSQL is full, accepted jobs stay and new jobs get a clear 503 until there is space again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, text

from common.config import Settings
from tests.faults.small_disk import SmallDisk, small_disk
from tests.integration.api.conftest import TINY_CONFIG, Api, running

TABLES = ("jobs", "experiments", "job_events", "outbox")
MOST = 4000
"""The disk must be full after at most this number of submissions."""


@pytest.fixture
def disk(engine: Engine) -> Iterator[SmallDisk]:
    """Move the tables of the job queue to a small disk."""
    # Not in tmp_path, which the user that runs PostgreSQL may not read.
    folder = Path(f"/tmp/tidal-tables-{os.getpid()}")
    with small_disk(folder) as found:
        if not found.mounted:
            pytest.skip("needs a file system of its own, which only root may mount")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            postgres = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
            shutil.chown(folder, postgres.uids().real, postgres.gids().real)
            connection.execute(text(f"CREATE TABLESPACE small LOCATION '{folder}'"))
            for table in TABLES:
                connection.execute(text(f"ALTER TABLE {table} SET TABLESPACE small"))
        yield found
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in TABLES:
                connection.execute(text(f"ALTER TABLE {table} SET TABLESPACE pg_default"))
            connection.execute(text("DROP TABLESPACE small"))
    folder.rmdir()


def test_accepted_jobs_stay_and_a_rejected_job_gets_a_clear_error(disk: SmallDisk, settings: Settings) -> None:
    with running(settings, max_waiting_jobs=10 * MOST) as api:
        accepted = [api.submit()["id"]]
        disk.fill(leave_mb=0)
        refused = None
        for _ in range(MOST):
            reply = api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG})
            if reply.status_code != 201:
                refused = reply
                break
            accepted.append(reply.json()["id"])
        assert refused is not None
        assert (refused.status_code, refused.json()["code"]) == (503, "database_disk_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert jobs(api) == set(accepted)
        disk.empty()
        accepted.append(api.submit()["id"])
        assert jobs(api) == set(accepted)


def jobs(api: Api) -> set[str]:
    found: set[str] = set()
    cursor = ""
    while True:
        page = api.http.get(f"/api/jobs?limit=200{cursor and f'&cursor={cursor}'}").json()
        found |= {job["id"] for job in page["jobs"]}
        if page.get("nextCursor") is None:
            return found
        cursor = page["nextCursor"]
