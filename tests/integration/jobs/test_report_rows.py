"""The table of reports: its constraints, and a migration that is reverted while reports exist."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from common.db import Report, downgrade, make_engine, upgrade
from tests.integration.jobs.job_queue import JobQueue


def test_the_database_knows_the_patterns_and_counts_versions_from_one(job_queue: JobQueue) -> None:
    job_queue.do(lambda session: session.add(Report(id="rep_1", title="t", markdown="m", pattern="full-report")))
    assert job_queue.rows("SELECT version, experiment_ids FROM reports") == [(1, [])]
    for fields in ({"pattern": "other"}, {"version": 0}):
        with pytest.raises(IntegrityError):
            job_queue.do(
                lambda session, fields=fields: session.add(Report(id="rep_2", title="t", markdown="m", **fields))
            )


def test_the_migration_can_be_reverted_while_reports_exist(job_queue: JobQueue, database_url: str) -> None:
    job_queue.do(lambda session: session.add(Report(id="rep_1", title="t", markdown="m")))
    downgrade(database_url, "0003")
    engine = make_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('reports')")) is None
        assert connection.scalar(text("SELECT to_regclass('analyses')")) is not None
    engine.dispose()
    upgrade(database_url)
    assert job_queue.rows("SELECT id FROM reports") == []
