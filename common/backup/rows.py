"""All rows of Tidal's tables as files, and back: PostgreSQL's COPY in its text form, which every version reads.

One transaction each way, so that a dump is one moment and a load is whole or not at all. Leaves out: the tables
themselves, which the migrations create, and what is not Tidal's in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from common.backup.archive import BLOCK, Progress, Table
from common.db import Base
from common.errors import StorageError

ATTEMPTS = 100
"""A restored job goes on above the next multiple: whatever still runs from before holds a lower attempt, and may not
write."""


@dataclass(frozen=True)
class Dump:
    """What was written: the moment, and the tables in the order in which they can be filled."""

    created_at: datetime
    tables: dict[str, Table]


def dump_rows(engine: Engine, folder: Path, progress: Progress) -> Dump:
    """Write `<table>.copy` into `folder` for each table, all of one snapshot."""
    tables = {}
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        moment = connection.scalar(text("SELECT now()"))
        for table in Base.metadata.sorted_tables:
            columns = [column.name for column in table.columns]
            statement = sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(table.name), _list(columns))
            cursor = _driver(connection).cursor()
            with (folder / f"{table.name}.copy").open("wb") as file, cursor.copy(statement) as rows:
                for block in rows:
                    file.write(block)
                    progress(len(block))
            tables[table.name] = Table(columns=columns, rows=cursor.rowcount)
    assert isinstance(moment, datetime)
    return Dump(moment.astimezone(UTC), tables)


def load_rows(
    engine: Engine, folder: Path, tables: Mapping[str, Table], *, saved_at: datetime, progress: Progress
) -> None:
    """Fill the empty tables from `folder`, then fence the jobs that have not ended.

    Each of those gets a higher attempt, its budget of restarts back, and an event `restored`. StorageError when a
    table has not the rows that were saved.
    """
    with engine.begin() as connection:
        cursor = _driver(connection).cursor()
        for name in tables:  # their rules are about changes; what is loaded was there before
            cursor.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(name)))
        for name, table in tables.items():
            statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(name), _list(table.columns))
            with (folder / f"{name}.copy").open("rb") as file, cursor.copy(statement) as rows:
                while block := file.read(BLOCK):
                    rows.write(block)
                    progress(len(block))
            if cursor.rowcount != table.rows:
                raise StorageError(f"table {name}: {cursor.rowcount} rows were loaded, {table.rows} were saved")
            if "id" in table.columns:
                _go_on_counting(cursor, name)
        _fence(cursor, saved_at)
        for name in tables:
            cursor.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.Identifier(name)))


def count_rows(engine: Engine) -> dict[str, int]:
    """Rows of the tables that are there."""
    counts = {}
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table.name}):
                counts[table.name] = connection.scalar(text(f'SELECT count(*) FROM "{table.name}"')) or 0
    return counts


def _go_on_counting(cursor: psycopg.Cursor, name: str) -> None:
    """Numbers drawn from now on lie above those that were loaded; tables with other ids have no sequence."""
    cursor.execute("SELECT pg_get_serial_sequence(%s, 'id')", (name,))
    row = cursor.fetchone()
    if row is not None and row[0] is not None:
        highest = sql.SQL("SELECT setval(%s, greatest((SELECT max(id) FROM {}), 1))").format(sql.Identifier(name))
        cursor.execute(highest, (row[0],))


def _fence(cursor: psycopg.Cursor, saved_at: datetime) -> None:
    cursor.execute(
        """
        WITH live AS (
            SELECT id, attempt AS before FROM jobs WHERE status NOT IN ('completed', 'failed', 'cancelled')
        ), fenced AS (
            UPDATE jobs SET attempt = (attempt / %(step)s + 1) * %(step)s, infra_restarts = 0, updated_at = now(),
                started_at = coalesce(started_at, now()) -- it may have been claimed since; an attempt has a start
            FROM live WHERE jobs.id = live.id
            RETURNING jobs.id, jobs.attempt, live.before
        )
        INSERT INTO job_events (job_id, attempt, event, actor, details)
        SELECT id, attempt, %(event)s, 'system', jsonb_build_object('savedAt', %(saved)s::text, 'attempt', before)
        FROM fenced ORDER BY id
        """,
        {"event": "restored", "step": ATTEMPTS, "saved": saved_at.isoformat()},
    )


def _driver(connection: Connection) -> psycopg.Connection:
    """The driver's own connection, inside SQLAlchemy's transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def _list(columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
