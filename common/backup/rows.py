"""Saves and loads the rows of Tidal's tables with COPY in text format, which every version of PostgreSQL can read.

A dump reads one snapshot of the database, and a load is one transaction. The migrations create the tables. Tables and
other objects that do not belong to Tidal are neither saved nor changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from common.backup.archive import BLOCK, Progress, SavedTable
from common.db import Base
from common.errors import StorageError

ATTEMPTS = 100
"""The attempt number of a restored job is raised to the next multiple of this number. If a worker still runs an attempt
from before the restore, the writes of this attempt are rejected, because it has a lower number."""


@dataclass(frozen=True)
class Dump:
    """The result of `dump_rows`."""

    created_at: datetime
    """Time of the snapshot, by the database's clock."""
    tables: dict[str, SavedTable]


def dump_rows(engine: Engine, folder: Path, progress: Progress) -> Dump:
    """Write `<table>.copy` into `folder` for each table; all rows belong to one snapshot of the database."""
    tables = {}
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        moment = connection.scalar(text("SELECT now()"))
        for table in Base.metadata.sorted_tables:
            columns = [column.name for column in table.columns]
            statement = sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(table.name), _column_list(columns))
            cursor = _driver(connection).cursor()
            with (folder / f"{table.name}.copy").open("wb") as file, cursor.copy(statement) as rows:
                for block in rows:
                    file.write(block)
                    progress(len(block))
            tables[table.name] = SavedTable(columns=columns, rows=cursor.rowcount)
    assert isinstance(moment, datetime)
    return Dump(moment.astimezone(UTC), tables)


def load_rows(
    engine: Engine, folder: Path, tables: Mapping[str, SavedTable], *, saved_at: datetime, progress: Progress
) -> None:
    """Fill the empty tables from `folder`, and invalidate earlier attempts of jobs that have not ended.

    Each of these jobs gets a higher attempt number (see ATTEMPTS), a restart count of 0, and an event `restored`.
    Raises StorageError if the number of rows loaded into a table differs from the number saved.
    """
    with engine.begin() as connection:
        cursor = _driver(connection).cursor()
        for name in tables:  # the triggers check status changes by services, and would reject the rows to load
            cursor.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(name)))
        for name, table in tables.items():
            statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(name), _column_list(table.columns))
            with (folder / f"{name}.copy").open("rb") as file, cursor.copy(statement) as rows:
                while block := file.read(BLOCK):
                    rows.write(block)
                    progress(len(block))
            if cursor.rowcount != table.rows:
                raise StorageError(f"table {name}: {cursor.rowcount} rows were loaded, {table.rows} were saved")
            if "id" in table.columns:
                _advance_sequence(cursor, name)
        _fence(cursor, saved_at)
        for name in tables:
            cursor.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.Identifier(name)))


def count_rows(engine: Engine) -> dict[str, int]:
    """Return the number of rows of each table that exists."""
    counts = {}
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table.name}):
                counts[table.name] = connection.scalar(text(f'SELECT count(*) FROM "{table.name}"')) or 0
    return counts


def _advance_sequence(cursor: psycopg.Cursor, name: str) -> None:
    """Set the sequence of a table's column `id` to the highest loaded id, if the column has a sequence."""
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
                started_at = coalesce(started_at, now()) -- a job with an attempt above 0 must have a start
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
    """Return the psycopg connection that SQLAlchemy uses for `connection` and its transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def _column_list(columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
