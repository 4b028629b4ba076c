"""The table of reports: its constraints, and a migration that is reverted while reports exist."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from common.db import Report, downgrade, make_engine, upgrade
from tests.integration.jobs.desk import Desk


def test_the_database_knows_the_patterns_and_counts_versions_from_one(desk: Desk) -> None:
    desk.do(lambda session: session.add(Report(id="rep_1", title="t", markdown="m", pattern="full-report")))
    assert desk.rows("SELECT version, experiment_ids FROM reports") == [(1, [])]
    for fields in ({"pattern": "other"}, {"version": 0}):
        with pytest.raises(IntegrityError):
            desk.do(lambda session, fields=fields: session.add(Report(id="rep_2", title="t", markdown="m", **fields)))


def test_the_migration_can_be_reverted_while_reports_exist(desk: Desk, database_url: str) -> None:
    desk.do(lambda session: session.add(Report(id="rep_1", title="t", markdown="m")))
    downgrade(database_url, "0003")
    engine = make_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('reports')")) is None
        assert connection.scalar(text("SELECT to_regclass('analyses')")) is not None
    engine.dispose()
    upgrade(database_url)
    assert desk.rows("SELECT id FROM reports") == []
