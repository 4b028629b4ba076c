"""Implements `tidal migrate-checkpoint`: `python -m common.checkpoint SOURCE TARGET [--column K]`.

The command runs in a separate process, because the CLI itself never imports torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.checkpoint.model_file import migrate_checkpoint
from common.checkpoint.state import DEFAULT_GATE_COLUMN
from common.errors import TidalError
from common.streams import accept_any_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate a checkpoint. Return 0 if the target was written, 1 after an error, which is printed to stderr."""
    parser = argparse.ArgumentParser(prog="tidal migrate-checkpoint", description=migrate_checkpoint.__doc__)
    parser.add_argument("source", type=Path, help="checkpoint in any format of Tidal or of the original project")
    parser.add_argument("target", type=Path, help="file to write, .safetensors or .pth")
    parser.add_argument(
        "--column",
        type=int,
        default=DEFAULT_GATE_COLUMN,
        help="which of the three inputs of each gate to keep, counted from 0",
    )
    accept_any_text()
    options = parser.parse_args(arguments)
    try:
        result = migrate_checkpoint(options.source, options.target, column=options.column)
    except TidalError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    changed = result.gates_migrated
    gates = f"{changed} gates reduced to input {options.column}" if changed else "all gates already have one input"
    sys.stdout.write(f"{result.path}: {result.num_parameters:,} parameters, {gates}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
