"""Implements `tidal export`: `python -m common.export SOURCE FOLDER --format F [--without-gates] [--force]`.

It runs in a process of its own, because the process of the CLI never loads torch. It prints one JSON object per line:
{"phase": "…"} during the work, and {"done": {…}} or {"error": "…"} at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.errors import TidalError
from common.export.checkpoint import ExportFormat, export_checkpoint
from common.streams import accept_any_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a checkpoint. Return 0 if the folder was written, 1 after an error, which is the last line printed."""
    parser = argparse.ArgumentParser(prog="tidal export", description=export_checkpoint.__doc__)
    parser.add_argument("source", type=Path, help="checkpoint file or folder")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--format", type=ExportFormat, choices=list(ExportFormat), required=True)
    parser.add_argument("--without-gates", action="store_true", help="leave out the gates of a language model")
    parser.add_argument("--force", action="store_true", help="replace an older export")
    accept_any_text()
    options = parser.parse_args(arguments)
    try:
        done = export_checkpoint(
            options.source,
            options.format,
            options.folder,
            gates=not options.without_gates,
            force=options.force,
            progress=lambda phase: _print_json({"phase": phase}),
        )
    except TidalError as error:
        _print_json({"error": error.message})
        return 1
    _print_json({"done": {**asdict(done), "folder": str(done.folder)}})
    return 0


def _print_json(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
