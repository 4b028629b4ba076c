"""Runs `python -m services.api` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.config import PROJECT_ROOT


@contextmanager
def process(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run the api process with this environment, and kill it at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")}
    started = subprocess.Popen(
        [sys.executable, "-m", "services.api"],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(PROJECT_ROOT), "TIDAL_EXPERIMENTS_DIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


def address_of(started: subprocess.Popen[str]) -> str:
    """Return the address that the process has logged."""
    assert started.stderr is not None
    for line in started.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found.group()
    raise AssertionError("the process ended before it listened")
