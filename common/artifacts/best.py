"""Which checkpoint of an experiment is the best so far: a small file that names it, so that nothing is copied.

`<experiment>/checkpoints/best.json` is `{"name", "metric", "value", "step"}`, `name` relative to the experiment's
folder: a checkpoint folder, or the final model when no checkpoint was better. Written by the trainer
(`common.checkpoint`), read by the artifact store. A file that cannot be read, that names nothing, or whose value is not
finite (a comparison with NaN never ends well, so such a best would stay for good) counts as none.
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
class Best:
    """The best of an experiment."""

    name: str
    """Relative to the experiment's folder: `checkpoints/step-000000250`, `transformer-lm_v1.0.0.safetensors`."""
    metric: str
    """What was compared: "validation loss" (lower is better) or "evaluation reward" (higher is better)."""
    value: float
    step: int
    """Finished optimiser updates; controller: transitions."""


def write_best(checkpoints: Path, best: Best) -> None:
    """Name the best in the folder `checkpoints`; StorageError when the disk refuses, the old name stays then.

    DivergedError for a value that is not finite.
    """
    require_finite(f"the {best.metric} of {best.name}", best.value)
    write_atomic(checkpoints / BEST_FILE, lambda path: write_json(path, asdict(best)))


def read_best(checkpoints: Path) -> Best | None:
    """What `write_best` wrote; None when nothing readable is there or the named thing is gone."""
    try:
        found = json.loads((checkpoints / BEST_FILE).read_text(encoding="utf-8"))
        best = Best(str(found["name"]), str(found["metric"]), float(found["value"]), int(found["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not math.isfinite(best.value):
        return None
    if ".." in Path(best.name).parts or Path(best.name).is_absolute():
        return None
    path = checkpoints.parent / best.name
    return best if path.is_file() or (path / "manifest.json").is_file() else None
