"""`python -m common.checkpoint SOURCE TARGET [--column N]`: what `tidal migrate-checkpoint` runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.checkpoint.model_file import migrate_checkpoint
from common.errors import TidalError


def main() -> int:
    """Migrate one file; the exit status is 1 when it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m common.checkpoint", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--column", type=int, default=2)
    options = parser.parse_args()
    try:
        done = migrate_checkpoint(options.source, options.target, column=options.column)
    except TidalError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    gates = f"{done.gates_migrated} gates migrated" if done.gates_migrated else "its gates needed no change"
    sys.stdout.write(f"{done.path}: {done.num_parameters:,} parameters, {gates}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
