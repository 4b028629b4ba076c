"""Bytes on the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`; what vanishes meanwhile, or is not there, counts as nothing."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total
