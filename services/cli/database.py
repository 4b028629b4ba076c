"""`tidal db migrate` and `tidal db sweep`, on the database of TIDAL_DATABASE_URL or of the local stack."""

from __future__ import annotations

import typer
from pydantic import SecretStr

from common.client import read_instance
from common.config import get_settings
from common.errors import UnavailableError
from services.cli.output import out

app = typer.Typer(help="The database of TIDAL_DATABASE_URL, or of the local stack.", no_args_is_help=True)


@app.command()
def migrate() -> None:
    """Create or update the tables. Safe to repeat, and to run from two places at once."""
    # Imported here: other commands do without the second that it takes.
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import OperationalError

    from common.db import make_engine, schema_status, upgrade

    url = database_url()
    engine = make_engine(url)
    try:
        upgrade(url)
        out.print(schema_status(engine).message)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()
        raise UnavailableError(f"the database cannot be reached: {reason[-1] if reason else error}") from error
    except CommandError as error:
        raise UnavailableError(f"the migrations cannot be run: {error}") from error
    finally:
        engine.dispose()


@app.command()
def sweep() -> None:
    """Do the health process's work once: judge lost workers, ring for waiting jobs, publish what waits.

    For when that process is down. Harmless beside it: one of the two acts.
    """
    from sqlalchemy.exc import OperationalError

    from common.jobs.sweep import sweep_once

    instance, settings = read_instance(), get_settings()
    if "database_url" not in settings.model_fields_set and instance is not None:
        addresses = {"database_url": SecretStr(instance.database_url), "redis_url": SecretStr(instance.redis_url)}
        settings = settings.model_copy(update=addresses)
    try:
        done = sweep_once(settings)
    except OperationalError as error:
        raise UnavailableError(f"the database cannot be reached: {str(error.orig).strip()}") from error
    if not done.acted:
        out.print("Another sweep is at work; nothing was done.")
        return
    reaped = done.reaped
    out.print(
        f"{reaped.stale} marked stale, {reaped.requeued} back in the queue, {reaped.cancelled} cancelled, "
        f"{reaped.failed} failed; {done.rung} doorbells rung, {done.published} messages published."
    )


def database_url() -> str:
    """Of the environment, else of the running local stack, else the default."""
    settings = get_settings()
    instance = read_instance()
    if "database_url" not in settings.model_fields_set and instance is not None:
        return instance.database_url
    return settings.database_url.get_secret_value()
