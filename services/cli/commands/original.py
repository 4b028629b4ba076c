"""`tidal import-config` and `tidal import`: what the original wrote, made ours."""

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
    source: Annotated[Path, typer.Argument(help="YAML file of the original, with its upper-case keys.")],
    target: Annotated[Path | None, typer.Option("--out", "-o", help="File to write. Default: print it.")] = None,
) -> None:
    """Convert a configuration file of the original to ours.

    Language model or controller, told by its keys. What has no place here is named with the reason.
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
    folder: Annotated[Path, typer.Argument(help="Experiment folder of the original.")],
    experiment_id: Annotated[
        str | None, typer.Option("--id", help="Id of the experiment here. Default: the folder's name.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="A name to find it by.")] = None,
) -> None:
    """Take over an experiment of the original as a finished one.

    Configuration, metrics, results and checkpoints are taken; TensorBoard logs are not. Writes to the artifact store
    and the database directly: those of the local stack, or of TIDAL_EXPERIMENTS_DIR and TIDAL_DATABASE_URL.
    """
    from services.cli import import_directory  # it loads the database's library

    apply_umask()
    done = import_directory.run(folder, experiment_id=experiment_id, name=name)
    out.print(
        f"Imported {done.experiment_id} ({done.kind}): {plural(done.files, 'file')}, "
        f"{plural(done.points, 'metric point')}."
    )
    for line in done.remarks:
        out.print(f"  {line}", soft_wrap=True)
    if done.model is not None:
        out.print(f"Try it: tidal generate 'Once upon a time' --checkpoint {done.model}", soft_wrap=True)
