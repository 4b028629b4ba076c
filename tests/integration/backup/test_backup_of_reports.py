"""Reports are saved and restored unchanged, and a restore replaces existing reports only with --force."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker, undefer

from common.config import Settings
from common.db import Report
from common.errors import ConflictError
from tests.integration.backup.backups import restore, save

TEXT = "é \\N \\\\ \t\n```chart\n{experiments: [a], metrics: [m]}\n```\n"


def test_a_report_comes_back_as_it_was_and_is_not_lost_unasked(
    settings: Settings, sessions: sessionmaker[Session], engine: Engine, tmp_path: Path
) -> None:
    def stored() -> Report:
        with sessions() as session:
            return session.scalars(select(Report).options(undefer(Report.markdown))).one()

    with sessions.begin() as session:
        session.add(Report(id="rep_1", title="Tide", markdown=TEXT, experiment_ids=["a", "b,{}"], version=7))
    before = stored()
    backup = tmp_path / "saved.tar"
    save(settings, backup)
    with sessions.begin() as session:
        session.get_one(Report, "rep_1").title = "Newer"
    engine.dispose()
    with pytest.raises(ConflictError, match="the database contains 1 reports; --force"):
        restore(backup, settings)
    assert stored().title == "Newer"
    engine.dispose()
    restore(backup, settings, force=True)
    after = stored()
    for column in Report.__table__.columns:
        assert getattr(after, column.name) == getattr(before, column.name), column.name
