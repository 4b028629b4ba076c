"""Database errors become replies from which a client learns whether to retry."""

from __future__ import annotations

import psycopg.errors
from sqlalchemy.exc import OperationalError

from services.api.errors import from_database_error


def test_a_full_disk_of_the_database_has_its_own_error_code() -> None:
    error = OperationalError("INSERT …", {}, psycopg.errors.DiskFull("could not extend file"))
    found = from_database_error(error)
    assert found is not None
    assert (found.status, found.code) == (503, "database_disk_full")
    assert "disk of the database is full" in found.message and "changed nothing" in found.message
