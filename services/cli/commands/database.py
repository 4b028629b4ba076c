"""`tidal db migrate`, `sweep` and `retention`: maintain the database of TIDAL_DATABASE_URL or of the local stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from common.config import Settings, get_settings
from common.errors import UnavailableError
from common.words import plural
from services.cli.output import out
from tidal_client import read_instance

app = typer.Typer(help="Maintain the database of TIDAL_DATABASE_URL or of the local stack.", no_args_is_help=True)


@app.command()
def migrate() -> None:
    """Create the tables or migrate them to the current version.

    It is safe to repeat this command, also in several processes at once.
    """
    # Imported here because the import takes a second, which would delay other commands.
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
        raise UnavailableError(f"the database is not reachable: {reason[-1] if reason else error}") from error
    except CommandError as error:
        raise UnavailableError(f"the database cannot be migrated: {error}") from error
    finally:
        engine.dispose()


@app.command()
def sweep() -> None:
    """Do the work of the health process once.

    The command handles stale jobs, notifies workers of waiting jobs, and publishes messages that are not published yet.

    Use this while the health process is down. If the health process is running, only one of the two does the work at a
    time.
    """
    from sqlalchemy.exc import OperationalError

    from common.jobs.maintenance import run_maintenance_once

    try:
        done = run_maintenance_once(_settings())
    except OperationalError as error:
        raise UnavailableError(f"the database is not reachable: {str(error.orig).strip()}") from error
    if not done.acted:
        out.print(
            "Nothing was done, because the health process or another `tidal db sweep` is doing the same work now."
        )
        return
    reaped = done.reaped
    out.print(
        f"Jobs: {reaped.stale} marked stale, {reaped.requeued} back in the queue, {reaped.cancelled} cancelled, "
        f"{reaped.failed} failed; {done.notifications} notifications sent, {done.published} messages published."
    )


@app.command()
def retention(
    days: Annotated[
        float | None,
        typer.Option(min=0, help="Minimum number of days since the job ended, instead of TIDAL_RETENTION_DAYS."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete logs and metrics of experiments whose job ended long ago; keep models, checkpoints and results.

    If TIDAL_RETENTION_DAYS is set, the health process does this every hour. Run the command on the machine that stores
    the experiments.
    """
    from sqlalchemy.exc import OperationalError

    from common.artifacts import ArtifactStore
    from common.db import make_engine, session_factory
    from common.jobs.retention import delete_expired_archives, find_expired_archives

    settings = _settings()
    days = settings.retention_days if days is None else days
    if not days:
        out.print("Nothing was deleted, because TIDAL_RETENTION_DAYS is 0. Choose an age with --days.")
        return
    engine = make_engine(settings.database_url, application_name="tidal-retention", pool_size=1)
    store = ArtifactStore(settings.experiments_dir)
    try:
        if dry_run:
            with session_factory(engine)() as session:
                found = find_expired_archives(session, store, days)
        else:
            found = delete_expired_archives(engine, store, days)
    except OperationalError as error:
        raise UnavailableError(f"the database is not reachable: {str(error.orig).strip()}") from error
    finally:
        engine.dispose()
    for archive in found:
        out.print(
            f"{archive.experiment_id}  {archive.size_bytes / 1e6:,.1f} MB  ended {archive.finished_at:%Y-%m-%d}",
            soft_wrap=True,
        )
    total = sum(archive.size_bytes for archive in found) / 1e6
    out.print(f"{plural(len(found), 'experiment')}, {total:,.1f} MB {'would be freed' if dry_run else 'freed'}.")


def _settings() -> Settings:
    """Return the settings of the environment.

    If they name no database and the local stack is running, use the addresses and the folder of the stack.
    """
    instance, settings = read_instance(), get_settings()
    if "database_url" in settings.model_fields_set or instance is None:
        return settings
    return settings.model_copy(
        update={
            "database_url": SecretStr(instance.database_url),
            "redis_url": SecretStr(instance.redis_url),
            "experiments_dir": Path(instance.experiments_dir),
        }
    )


def database_url() -> str:
    """Return the database URL of the environment, else that of the running local stack, else the default."""
    settings = get_settings()
    instance = read_instance()
    if "database_url" not in settings.model_fields_set and instance is not None:
        return instance.database_url
    return settings.database_url.get_secret_value()
