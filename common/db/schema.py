"""Checks whether the database has the current schema, and migrates it (`tidal db migrate`).

The health process and the training workers call `wait_for_schema(engine, stop)` when they start. Two processes may call
`upgrade(url)` at the same time, because `migrations/env.py` takes an advisory lock.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from common.config import PROJECT_ROOT
from common.db.engine import database_url
from common.errors import UnavailableError
from common.logging import get_logger

RETRY_SECONDS = 2.0

log = get_logger(__name__)


@dataclass(frozen=True)
class SchemaStatus:
    """The revision of the database, compared with the newest revision that this version of Tidal knows."""

    state: Literal["current", "behind", "unmigrated", "ahead"]
    """behind: the database has an older revision; unmigrated: it has no tables; ahead: this version does not know the
    revision."""
    revision: str | None
    head: str

    @property
    def message(self) -> str:
        """Describe the state in a sentence, and what to do about it."""
        if self.state == "current":
            return f"database is at revision {self.revision}"
        if self.state == "unmigrated":
            return "database has no Tidal tables yet; run `tidal db migrate`"
        if self.state == "behind":
            return f"database is at revision {self.revision}, this version needs {self.head}; run `tidal db migrate`"
        return (
            f"database is at revision {self.revision}, which this version (head {self.head}) does not know; "
            "update Tidal, or set TIDAL_DATABASE_URL to another database"
        )


def alembic_config(url: str | SecretStr | URL) -> Config:
    """Return the configuration of Alembic for `url`; it does not depend on the working directory."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT_ROOT / "migrations"))
    config.attributes["url"] = database_url(url)
    return config


def schema_status(engine: Engine) -> SchemaStatus:
    """Compare the revision of the database with the newest migration. Raises SQLAlchemy's errors."""
    scripts = ScriptDirectory(str(PROJECT_ROOT / "migrations"))
    head = scripts.get_current_head()
    assert head is not None
    with engine.connect() as connection:
        table_exists = connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
        revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if table_exists else None
    if revision is None:
        return SchemaStatus("unmigrated", None, head)
    if revision == head:
        return SchemaStatus("current", revision, head)
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaStatus("behind" if revision in known else "ahead", revision, head)


def require_schema(engine: Engine) -> None:
    """Raise UnavailableError, with the remedy in its message, unless the schema is current."""
    status = schema_status(engine)
    if status.state != "current":
        raise UnavailableError(status.message, code="database_not_migrated")


def wait_for_schema(engine: Engine, stop: threading.Event) -> bool:
    """Wait until the database answers; return False if `stop` is set first.

    Raises UnavailableError when the schema is not current.
    """
    logged = False
    while not stop.is_set():
        try:
            require_schema(engine)
            return True
        except SQLAlchemyError as error:
            if not logged:
                log.warning("waiting for the database", error=str(error))
            logged = True
        stop.wait(RETRY_SECONDS)
    return False


def upgrade(url: str | SecretStr | URL, revision: str = "head") -> None:
    """Upgrade the schema to `revision`."""
    command.upgrade(alembic_config(url), revision)


def downgrade(url: str | SecretStr | URL, revision: str = "base") -> None:
    """Downgrade the schema to `revision`; the data of dropped tables and columns is lost."""
    command.downgrade(alembic_config(url), revision)
