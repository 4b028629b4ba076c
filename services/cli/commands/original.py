"""`tidal import-config` and `tidal import`: convert configurations and experiments of the original project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.config.legacy import convert
from common.config.private_files import apply_umask
from common.config.yaml_text import read_mapping, write_yaml
from common.streams import shows_unicode
from common.words import plural
from services.cli.output import err, out


def import_config(
    source: Annotated[Path, typer.Argument(help="YAML file of the original project, with upper-case keys.")],
    target: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write. Default: print the configuration.")
    ] = None,
) -> None:
    """Convert a configuration file of the original project.

    Whether it configures a language model or a controller is derived from its keys. Keys without an equivalent are
    listed, each with the reason.
    """
    kind, values, notes = convert(read_mapping(source))
    for note in notes:
        err.print(f"  {note}", style="yellow", soft_wrap=True)
    text = write_yaml(values, unicode=target is not None or shows_unicode(out.encoding))
    if target is None:
        out.out(text, highlight=False, end="")
        return
    target.write_text(text, encoding="utf-8")
    what = "language model" if kind == "lm" else "controller"
    out.print(f"Wrote {target}, the configuration of a {what}.", soft_wrap=True)


def import_experiment(
    folder: Annotated[Path, typer.Argument(help="Experiment folder of the original project.")],
    experiment_id: Annotated[
        str | None, typer.Option("--id", help="Id of the new experiment. Default: the name of the folder.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the new experiment.")] = None,
) -> None:
    """Import an experiment of the original project as a finished experiment.

    Configuration, metrics, results and checkpoints are imported, but TensorBoard logs are not. The command writes
    directly to the artifact store and the database, either those of the local stack or those in TIDAL_EXPERIMENTS_DIR
    and TIDAL_DATABASE_URL.
    """
    # Imported here because the module imports the database packages, which would delay other commands.
    from services.cli import import_directory

    apply_umask()
    done = import_directory.run(folder, experiment_id=experiment_id, name=name)
    out.print(
        f"Imported {done.experiment_id} ({done.kind}): {plural(done.files, 'file')}, "
        f"{plural(done.points, 'metric point')}."
    )
    for line in done.remarks:
        out.print(f"  {line}", soft_wrap=True)
    if done.model is not None:
        out.print(f"Try the model with: tidal generate 'Once upon a time' --checkpoint {done.model}", soft_wrap=True)
