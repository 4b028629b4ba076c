"""Reads and writes the file `<experiment>/checkpoints/best.json`, which names the best checkpoint so far.

The file contains `{"name", "metric", "value", "step"}`. `name` is the path of a checkpoint folder, or of the final
model if no checkpoint was better, relative to the experiment's folder. The trainer writes the file
(`common.checkpoint`), and the artifact store reads it. The file is ignored if it is unreadable or names a missing
checkpoint. It is also ignored if `value` is not finite, because no later checkpoint could be better than NaN.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import require_finite
from common.files import write_atomic, write_json

BEST_FILE = "best.json"


@dataclass(frozen=True)
class BestCheckpoint:
    """The best checkpoint of an experiment."""

    name: str
    """Path relative to the experiment's folder, such as `checkpoints/step-000000250` or
    `transformer-lm_v1.0.0.safetensors`."""
    metric: str
    """The compared metric: "validation loss" (lower is better) or "evaluation reward" (higher is better)."""
    value: float
    step: int
    """Number of optimiser steps before the checkpoint, or of transitions for a controller."""


def write_best(checkpoints: Path, best: BestCheckpoint) -> None:
    """Write `best.json` into the folder `checkpoints`.

    Raises StorageError if the file cannot be written, and DivergedError if the value is not finite. In both
    cases the previous file remains unchanged.
    """
    require_finite(f"the {best.metric} of {best.name}", best.value)
    write_atomic(checkpoints / BEST_FILE, lambda path: write_json(path, asdict(best)))


def read_best(checkpoints: Path) -> BestCheckpoint | None:
    """Return the record that `write_best` wrote; None if it is missing or invalid, or if its checkpoint is missing."""
    try:
        found = json.loads((checkpoints / BEST_FILE).read_text(encoding="utf-8"))
        best = BestCheckpoint(str(found["name"]), str(found["metric"]), float(found["value"]), int(found["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not math.isfinite(best.value):
        return None
    if ".." in Path(best.name).parts or Path(best.name).is_absolute():
        return None
    path = checkpoints.parent / best.name
    return best if path.is_file() or (path / "manifest.json").is_file() else None
