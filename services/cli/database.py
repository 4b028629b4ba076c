"""`tidal db migrate`: bring the tables of TIDAL_DATABASE_URL, or of the local stack, up to date."""

from __future__ import annotations

import typer

from common.client import read_instance
from common.config import get_settings
from common.errors import UnavailableError
from services.cli.output import out

app = typer.Typer(help="The database of TIDAL_DATABASE_URL, or of the local stack.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Makes `migrate` a subcommand although it is the only one."""


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


def database_url() -> str:
    """Of the environment, else of the running local stack, else the default."""
    settings = get_settings()
    instance = read_instance()
    if "database_url" not in settings.model_fields_set and instance is not None:
        return instance.database_url
    return settings.database_url.get_secret_value()
