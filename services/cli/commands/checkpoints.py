"""`tidal migrate-checkpoint`: converts a checkpoint of the original project or of an older version of Tidal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.processes import run_module


def migrate(
    source: Annotated[Path, typer.Argument(help="Checkpoint of the original project or of an older version of Tidal.")],
    target: Annotated[
        Path, typer.Argument(help="File to write, with suffix .safetensors or .pth. It must not exist yet.")
    ],
    column: Annotated[
        int,
        typer.Option("--column", min=0, max=2, help="Index of the gate input to keep if the gates have three inputs."),
    ] = 2,
) -> None:
    """Convert a checkpoint to the current format.

    The new file has the current parameter names and gates with one input, and is safe to load.
    """
    run_module("common.checkpoint", str(source), str(target), "--column", str(column))
