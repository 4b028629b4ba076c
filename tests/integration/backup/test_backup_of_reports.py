"""Reports are saved and brought back as they are, and are reason enough not to restore over them unasked."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker, undefer

from common.backup import create_backup, restore_backup
from common.config import Settings
from common.db import Report
from common.errors import ConflictError

TEXT = "é \\N \\\\ \t\n```chart\n{experiments: [a], metrics: [m]}\n```\n"


def restore(backup: Path, settings: Settings, *, force: bool = False) -> None:
    restore_backup(
        backup,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        experiments_dir=settings.experiments_dir,
        data_dir=settings.data_dir,
        force=force,
    )


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
    create_backup(
        backup, database_url=settings.database_url, experiments_dir=settings.experiments_dir, data_dir=settings.data_dir
    )
    with sessions.begin() as session:
        session.get_one(Report, "rep_1").title = "Newer"
    engine.dispose()
    with pytest.raises(ConflictError, match="the database holds 1 reports; --force"):
        restore(backup, settings)
    assert stored().title == "Newer"
    engine.dispose()
    restore(backup, settings, force=True)
    after = stored()
    for column in Report.__table__.columns:
        assert getattr(after, column.name) == getattr(before, column.name), column.name
