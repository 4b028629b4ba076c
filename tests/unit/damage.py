"""Damages checkpoint folders in several ways, for tests of loading."""

from __future__ import annotations

import shutil
from pathlib import Path

DAMAGES = ["truncated", "bit flipped", "without manifest", "half written"]


def damage(folder: Path, how: str) -> None:
    """Damage a valid checkpoint folder; `how` is one of DAMAGES."""
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    if how == "truncated":
        weights.write_bytes(data[: len(data) // 2])
    elif how == "bit flipped":
        data[-5] ^= 1
        weights.write_bytes(data)
    elif how == "without manifest":
        (folder / "manifest.json").unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir()
        weights.write_bytes(data[:100])
