"""A pool of databases for tests: each test gets a migrated database without rows.

Copying the template takes 0.15 s, and dropping a database forces a checkpoint of PostgreSQL. Therefore the database of
an earlier test is emptied and given to the next test. It is dropped instead if a process is still connected to it, or
if its schema, settings or revision differ from those of the template.
"""

from __future__ import annotations

from itertools import count

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from services.local.servers import PostgresServer

_numbers = count(1)

_SHAPE = """
SELECT md5(concat(
    (SELECT string_agg(concat_ws(' ', c.relname, c.relkind, c.relhasrules, c.reloptions, c.relacl), ',' ORDER BY c.oid)
       FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace),
    (SELECT string_agg(concat_ws(' ', a.attrelid, a.attname, a.atttypid, a.attnotnull, a.attisdropped), ','
                       ORDER BY a.attrelid, a.attnum)
       FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'public'::regnamespace),
    (SELECT string_agg(concat_ws(' ', conname, pg_get_constraintdef(oid)), ',' ORDER BY oid)
       FROM pg_constraint WHERE connamespace = 'public'::regnamespace),
    (SELECT string_agg(concat_ws(' ', proname, prosrc), ',' ORDER BY oid)
       FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
    (SELECT string_agg(concat_ws(' ', tgname, tgrelid, tgfoid, tgenabled), ',' ORDER BY oid)
       FROM pg_trigger WHERE NOT tgisinternal),
    (SELECT string_agg(concat_ws(' ', indexrelid, indisvalid), ',' ORDER BY indexrelid)
       FROM pg_index WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)),
    (SELECT string_agg(array_to_string(setconfig, ','), ';')
       FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())),
    (SELECT string_agg(concat_ws(' ', datallowconn, datconnlimit, datacl), ',')
       FROM pg_database WHERE datname = current_database()),
    (SELECT string_agg(version_num, ',') FROM alembic_version)
))
"""
"""A query that hashes everything in a database that a test could change, except rows.

The hash includes object ids. A copy has the same ids as its template, but an object that a test drops and creates again
gets a new id.
"""

_EMPTY = """
DO $$
DECLARE
    entry regclass;
    filled boolean;
    names text := '';
BEGIN
    FOR entry IN SELECT oid FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', entry) INTO filled;
        IF filled THEN
            names := names || CASE WHEN names = '' THEN '' ELSE ', ' END || entry::text;
        END IF;
    END LOOP;
    IF names <> '' THEN
        EXECUTE 'TRUNCATE ' || names || ' CASCADE';
    END IF;
    FOR entry IN SELECT oid FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('ALTER SEQUENCE %s RESTART', entry);
    END LOOP;
END $$
"""


class Databases:
    """Creates databases on one server as copies of one template, and reuses them."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._free: list[str] = []
        self._shape = ""

    def take(self) -> str:
        """Return the name of an empty, migrated database."""
        if self._free:
            return self._free.pop()
        name = create(self._server, self._template)
        self._shape = self._shape or self._look(name)
        return name

    def give_back(self, name: str) -> None:
        """Empty the database for the next test, or drop it if emptying does not restore the state of the template."""
        if self._emptied(name):
            self._free.append(name)
        else:
            drop(self._server, name)

    def _emptied(self, name: str) -> bool:
        try:
            with connect(self._server, name) as connection:
                others = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", [name]
                ).fetchone()
                if others != (0,) or self._look(name) != self._shape:
                    return False
                connection.execute(_EMPTY)
        except psycopg.Error:
            return False
        return True

    def _look(self, name: str) -> str:
        with connect(self._server, name) as connection:
            found = connection.execute(_SHAPE).fetchone()
        assert found is not None
        return str(found[0])


def connect(server: PostgresServer, database: str) -> psycopg.Connection[tuple[object, ...]]:
    """Return a connection in autocommit mode."""
    url = make_url(server.url)
    return psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=database, autocommit=True
    )


def create(server: PostgresServer, template: str) -> str:
    """Copy `template` and return the name of the new database."""
    name = f"test_{next(_numbers)}"
    with connect(server, "postgres") as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return name


def drop(server: PostgresServer, name: str) -> None:
    """Drop the database and close its connections."""
    with connect(server, "postgres") as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def sibling(server: PostgresServer, database: str) -> str:
    """Return the URL of another database on the server."""
    return make_url(server.url).set(database=database).render_as_string(hide_password=False)
