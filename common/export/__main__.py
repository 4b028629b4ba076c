"""`python -m common.export SOURCE FOLDER --format F [--force]`: what `tidal export` runs.

It is a process of its own because the CLI's never loads torch. Speaks JSON on stdout, one object a line:
{"phase": "…"} as it goes, {"done": {…}} or {"error": "…"} last.
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
    """Exit status: 0 when the folder was written, 1 with the reason in the last line."""
    parser = argparse.ArgumentParser(prog="tidal export", description=export_checkpoint.__doc__)
    parser.add_argument("source", type=Path, help="checkpoint file or folder")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--format", type=ExportFormat, choices=list(ExportFormat), required=True)
    parser.add_argument("--force", action="store_true", help="replace an older export")
    accept_any_text()
    options = parser.parse_args(arguments)
    try:
        done = export_checkpoint(
            options.source,
            options.format,
            options.folder,
            force=options.force,
            progress=lambda phase: _say({"phase": phase}),
        )
    except TidalError as error:
        _say({"error": error.message})
        return 1
    _say({"done": {**asdict(done), "folder": str(done.folder)}})
    return 0


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
