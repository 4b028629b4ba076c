"""Migrations and models describe the same schema; migrations can be reverted; services detect a missing migration."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from alembic import command
from sqlalchemy import Engine, text

from common.config import PROJECT_ROOT
from common.db import Base, downgrade, make_engine, require_schema, schema_status, upgrade
from common.db.schema import alembic_config
from common.errors import UnavailableError

TABLES = {"analyses", "jobs", "job_events", "experiments", "checkpoints", "outbox", "reports", "tokens", "audit_log"}
SHAPE = """
SELECT 'column', table_name, column_name, data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
       || ' ' || is_identity
  FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index', tablename, indexname, indexdef
  FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""


def shape(engine: Engine) -> set[tuple[str, ...]]:
    """Return columns, constraints and indexes in PostgreSQL's own description."""
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(text(SHAPE))}


def test_migrations_create_exactly_the_schema_of_the_models(database_url: str, empty_database_url: str) -> None:
    migrated, created = make_engine(database_url), make_engine(empty_database_url)
    Base.metadata.create_all(created)
    there, wanted = shape(migrated), shape(created)
    migrated.dispose()
    created.dispose()
    assert there - wanted == set()
    assert wanted - there == set()
    assert {row[1] for row in there if row[0] == "column"} == TABLES


def test_alembic_sees_no_drift(database_url: str) -> None:
    command.check(alembic_config(database_url))  # fails if autogenerate finds a difference


def test_migrations_go_up_down_and_up_again(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    upgrade(empty_database_url)
    first = shape(engine)
    downgrade(empty_database_url)
    assert shape(engine) == set()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_proc WHERE proname = 'jobs_guard'")) == 0
    upgrade(empty_database_url)
    assert shape(engine) == first
    engine.dispose()


def test_the_error_of_an_unmigrated_database_names_the_command(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    assert schema_status(engine).state == "unmigrated"
    with pytest.raises(UnavailableError, match="tidal db migrate"):
        require_schema(engine)
    upgrade(empty_database_url)
    assert schema_status(engine).state == "current"
    require_schema(engine)
    engine.dispose()


def test_a_newer_database_is_not_touched(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert schema_status(engine).state == "ahead"
    with pytest.raises(UnavailableError, match="does not know"):
        require_schema(engine)


def test_two_migrations_at_once_wait_for_each_other(empty_database_url: str) -> None:
    command_line = [sys.executable, "-m", "alembic", "upgrade", "head"]
    environment = {**os.environ, "TIDAL_DATABASE_URL": empty_database_url}
    both = [
        subprocess.Popen(command_line, cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outcomes = [(process.communicate()[1], process.returncode) for process in both]
    assert [code for _, code in outcomes] == [0, 0], outcomes
    engine = make_engine(empty_database_url)
    assert schema_status(engine).state == "current"
    engine.dispose()
