"""`tidal export`: exports a trained model for other programs, in a child process that loads torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from common.child.launch import wait_or_kill
from common.errors import ConflictError, InvalidInputError, TidalError
from services.cli.checkpoint_source import checkpoint_path
from services.cli.output import err, format_size, out, print_json, table
from services.cli.processes import computing_environment

EXAMPLES = """
[bold]Examples[/bold]

tidal export 20260131-120000-commit_ab12cd3-config_0123456789/best --format hf

tidal export out/lm --format safetensors --out share/

tidal export checkpoints/step-000001000 --format pth
"""

EXIT_SECONDS = 5.0
"""The child process is killed if it has not exited this number of seconds after the end of its output."""


class ModelFormat(StrEnum):
    """The format of an exported model."""

    SAFETENSORS = "safetensors"
    PTH = "pth"
    HF = "hf"


def command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Checkpoint to export: EXPERIMENT/FILE, EXPERIMENT/best, EXPERIMENT/latest, EXPERIMENT/final, or a "
            "local file or folder."
        ),
    ],
    form: Annotated[
        ModelFormat,
        typer.Option(
            "--format",
            "-f",
            help="safetensors: weights and configuration. pth: a file for the original Tidal. "
            "hf: a model folder for transformers (language models only).",
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder to write. Default: NAME-FORMAT in the current folder, where NAME is the name of the "
            "checkpoint.",
        ),
    ] = None,
    without_gates: Annotated[
        bool,
        typer.Option(
            "--without-gates",
            help="Leave out the gates: the exported model ignores modulation. With format hf, a model of the "
            "architecture NanoChat then needs no code of Tidal.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the contents of the folder if it is not empty.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export a trained model or controller in a format that other programs can read.

    Final models and training checkpoints can be exported, including those of the original project. The folder is
    written atomically.
    """
    source = checkpoint_path(checkpoint)
    stem = source.name if source.is_dir() else source.name.removesuffix(".safetensors").removesuffix(".pth")
    folder = (target or Path(f"{stem}-{form}")).expanduser()
    if not force and folder.is_dir() and any(folder.iterdir()):  # checked here, before the child loads torch
        raise ConflictError(
            f"{folder} is not empty; choose another folder with --out, or replace its contents with --force"
        )
    done = run(source, folder, form, force, without_gates=without_gates)
    if as_json:
        print_json(done)
        return
    report(done, shown=folder)


command.__doc__ = (command.__doc__ or "") + EXAMPLES


def run(source: Path, folder: Path, form: ModelFormat, force: bool, *, without_gates: bool) -> dict[str, Any]:
    """Run the export in a child process and show its progress. Raises TidalError with the child's error message."""
    arguments = [sys.executable, "-m", "common.export", str(source), str(folder.absolute()), "--format", form.value]
    arguments += ["--force"] * force + ["--without-gates"] * without_gates
    process = subprocess.Popen(
        arguments,
        env=computing_environment(),
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    began = time.monotonic()
    try:
        with err.status("starting") as status:
            for line in process.stdout:
                message = json.loads(line)
                if "error" in message:
                    raise _Refused(message["error"])
                if "done" in message:
                    return dict(message["done"])
                status.update(Text(f"{message['phase']} ({time.monotonic() - began:.0f} s)"))
    finally:
        process.stdout.close()
        wait_or_kill(process, EXIT_SECONDS)
    raise InvalidInputError(
        f"the export ended without a result (exit status {process.returncode}); its output above shows the reason"
    )


class _Refused(TidalError):
    """Raised with the error message that the child process reported."""


def report(done: dict[str, Any], *, shown: Path) -> None:
    """Print the names of the written files, and code that loads them."""
    what = "controller" if done["kind"] == "rl" else "language model"
    out.print(f"Wrote {shown}/, a {what} of {done['parameters']:,} parameters:", soft_wrap=True)
    files = table("file", "size>")
    for name, count in done["files"]:
        files.add_row(name, format_size(count))
    out.print(files)
    for remark in done["remarks"]:
        err.print(remark, style="yellow", soft_wrap=True)
    out.print("Load the model with:")
    for line in done["load"]:
        out.print(Text(f"    {line}"), soft_wrap=True)
