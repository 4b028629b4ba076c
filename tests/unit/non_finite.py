"""Finds files with NaN or infinity below a folder, in any format, without using the code under test."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def non_finite_files(folder: Path) -> list[str]:
    """Return "<file>: <position>" for every NaN or infinity in the files below `folder`, including hidden files."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found += [f"{path.relative_to(folder)}: {where}" for where in _places(_load(path), "")]
    return found


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=True)
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return None


def _places(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, f"{where}/{name}")
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _places(item, f"{where}/{at}")
    elif isinstance(value, Tensor):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            yield where
    elif isinstance(value, float) and not math.isfinite(value):
        yield where
