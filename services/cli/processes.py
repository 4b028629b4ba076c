"""Child processes of the command line: what needs torch, or another service, runs in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer

from common.config import PROJECT_ROOT
from common.config import child_environment as passed_on


def child_environment() -> dict[str, str]:
    """Return the environment of this process with all secrets, for the local stack, with the project on PYTHONPATH."""
    path = os.pathsep.join(part for part in (str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def computing_environment() -> dict[str, str]:
    """Return the environment for a child that trains, generates or exports, without tokens and passwords."""
    return passed_on.child_environment(child_environment())


def run_module(module: str, *arguments: str) -> None:
    """Run `python -m module` in this terminal and leave with its exit status unless that is 0.

    Ctrl-C reaches the child too; it gets the time to write a checkpoint.
    """
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=computing_environment())
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:
            continue
    if status:
        raise typer.Exit(status if status > 0 else 128 - status)


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log file; nothing when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return []
