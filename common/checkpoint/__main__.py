"""`python -m common.checkpoint SOURCE TARGET [--column K]`: what `tidal migrate-checkpoint` runs.

It is a module of its own because the CLI's process never loads torch.
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
    """Exit status: 0 when the target was written, 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="tidal migrate-checkpoint", description=migrate_checkpoint.__doc__)
    parser.add_argument("source", type=Path, help="checkpoint in any form the original wrote")
    parser.add_argument("target", type=Path, help="file to write, .safetensors or .pth")
    parser.add_argument("--column", type=int, default=DEFAULT_GATE_COLUMN, help="gate input to keep of three")
    accept_any_text()
    options = parser.parse_args(arguments)
    try:
        result = migrate_checkpoint(options.source, options.target, column=options.column)
    except TidalError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    changed = result.gates_migrated
    gates = f"{changed} gates reduced to input {options.column}" if changed else "gates had one input already"
    sys.stdout.write(f"{result.path}: {result.num_parameters:,} parameters, {gates}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
