"""Defines the command `tidal`: registers all subcommands, and prints errors without traceback.

This process never imports torch. Commands that need torch start a child process. TIDAL_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from pydantic import ValidationError

from common.errors import TidalError
from common.streams import accept_any_text, as_typed
from services.cli.commands import (
    analyze,
    audit,
    backup,
    checkpoints,
    database,
    datasets,
    doctor,
    environment,
    experiments,
    export,
    generate,
    jobs,
    local,
    mcp,
    metrics,
    original,
    reports,
    tokens,
    training,
)
from services.cli.demo import command as demo
from services.cli.output import out, print_error

app = typer.Typer(
    name="tidal",
    help="Train small language models, train a controller that steers their decoding, and generate from the result.",
    epilog="Begin with `tidal demo`, or with `tidal up` and then `tidal jobs submit`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, JOBS, OFFLINE, HELP = "Start, stop, save", "Train and generate", "Without any service", "Help"

app.command("demo", rich_help_panel=START)(demo.command)
app.command("up", rich_help_panel=START)(local.up)
app.command("down", rich_help_panel=START)(local.down)
app.command("status", rich_help_panel=START)(local.status)
app.command("backup", rich_help_panel=START)(backup.backup)
app.command("restore", rich_help_panel=START)(backup.restore)
app.add_typer(jobs.app, name="jobs", rich_help_panel=JOBS)
app.add_typer(experiments.app, name="experiments", rich_help_panel=JOBS)
app.command("metrics", rich_help_panel=JOBS)(metrics.command)
app.add_typer(datasets.app, name="datasets", rich_help_panel=JOBS)
app.command("generate", rich_help_panel=JOBS)(generate.command)
app.add_typer(analyze.app, name="analyze", rich_help_panel=JOBS)
app.add_typer(reports.app, name="reports", rich_help_panel=JOBS)
app.add_typer(tokens.app, name="tokens", rich_help_panel=START)
app.command("audit", rich_help_panel=START)(audit.command)
app.command("export", rich_help_panel=JOBS)(export.command)
app.command("mcp", rich_help_panel=JOBS)(mcp.command)
app.command("import", rich_help_panel=JOBS)(original.import_experiment)
app.add_typer(training.app, name="train", rich_help_panel=OFFLINE)
app.command("migrate-checkpoint", rich_help_panel=OFFLINE)(checkpoints.migrate)
app.command("import-config", rich_help_panel=OFFLINE)(original.import_config)
app.command("doctor", rich_help_panel=HELP)(doctor.command)
app.command("env", rich_help_panel=HELP)(environment.command)
app.add_typer(database.app, name="db", rich_help_panel=HELP)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        out.print(f"tidal {version('tidal')}")
    except PackageNotFoundError:
        out.print("tidal (not installed, running from its source folder)")
    raise typer.Exit


@app.callback()
def options(
    print_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Handle the options of `tidal` itself, before any subcommand."""


def main() -> None:
    """Run the command line.

    Exits with status 0, 1 (error), 2 (invalid arguments), 130 (Ctrl-C) or 141 (closed pipe).
    """
    debug = bool(os.environ.get("TIDAL_DEBUG"))
    accept_any_text()
    sys.argv[1:] = map(as_typed, sys.argv[1:])
    try:
        app(prog_name="tidal")
    except TidalError as error:
        if debug:
            raise
        print_error(error.message)
        sys.exit(1)
    except ValidationError as error:
        if debug:
            raise
        finding = error.errors()[0]
        print_error(f"{'.'.join(str(part) for part in finding['loc'])}: {finding['msg']}")
        sys.exit(1)
    except UnicodeError as error:
        if debug:
            raise
        print_error(f"an argument or the input is not UTF-8 text ({error}); convert it to UTF-8")
        sys.exit(1)
    except BrokenPipeError:  # the program that reads the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if debug:
            raise
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        print_error(f"{type(error).__name__}: {error} (this is a bug in Tidal; TIDAL_DEBUG=1 shows the traceback)")
        sys.exit(1)
