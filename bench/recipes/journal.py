"""The output file: one line of JSON per finished run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.recipes.campaign import Run, Setup, describe


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Return {key of a run: its result}. An incomplete last line, left by a killed process, is ignored."""
    return {line["key"]: line["result"] for line in _lines(path)}


def read_setups(path: Path) -> list[Setup]:
    """Return the different setups of the finished runs, the one that was used last at the end."""
    setups: dict[Setup, None] = {}
    for line in _lines(path):
        values: dict[str, Any] = line["setup"]
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        setup = Setup(**{**values, **lists})
        setups.pop(setup, None)
        setups[setup] = None
    return list(setups)


def append(path: Path, setup: Setup, run: Run, result: Mapping[str, Any]) -> None:
    """Append the result of a run, and flush it to the disk."""
    line = {
        "key": run.key,
        "arm": run.arm,
        "stage": run.stage,
        "learning_rate": run.rate,
        "batch": run.batch,
        "seed": run.seed,
        "result": result,
        "setup": describe(setup),
        "torch": version("torch"),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut else "") + json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines
