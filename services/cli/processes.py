"""Starts child processes for commands that need torch or a service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer

from common.config import PROJECT_ROOT
from common.config.child_environment import child_environment


def stack_environment() -> dict[str, str]:
    """Return the environment for processes of the local stack: that of this process, with the project on PYTHONPATH."""
    path = os.pathsep.join(part for part in (str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def computing_environment() -> dict[str, str]:
    """Return the environment for a child that trains, generates or exports. It contains no tokens and passwords."""
    return child_environment(stack_environment())


def run_module(module: str, *arguments: str) -> None:
    """Run `python -m module` in this terminal, and exit with its exit status if that is not 0.

    Ctrl-C also reaches the child. In that case, this process waits until the child has ended, because the child may
    write a checkpoint.
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
    """Return the last `count` lines of a log file; an empty list if the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return []
