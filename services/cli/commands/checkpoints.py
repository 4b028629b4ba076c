"""`tidal migrate-checkpoint`: a checkpoint of the original, or an older one of ours, in today's form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.processes import run_module


def migrate(
    source: Annotated[Path, typer.Argument(help="Checkpoint in any form the original wrote.")],
    target: Annotated[Path, typer.Argument(help="File to write: .safetensors or .pth. Must not exist.")],
    column: Annotated[
        int, typer.Option("--column", min=0, max=2, help="Of gates with three inputs, the one that stays.")
    ] = 2,
) -> None:
    """Rewrite a checkpoint: gates with one input, plain names, safe to load."""
    run_module("common.checkpoint", str(source), str(target), "--column", str(column))
