"""`tidal migrate-checkpoint`: converts a checkpoint of the original project, or an older one of Tidal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.processes import run_module


def migrate(
    source: Annotated[Path, typer.Argument(help="Checkpoint of the original project or of an older version.")],
    target: Annotated[Path, typer.Argument(help="File to write: .safetensors or .pth. Must not exist.")],
    column: Annotated[
        int, typer.Option("--column", min=0, max=2, help="Number of the input to keep, for gates with three inputs.")
    ] = 2,
) -> None:
    """Convert a checkpoint to the present format: gates with one input, present parameter names, safe to load."""
    run_module("common.checkpoint", str(source), str(target), "--column", str(column))
