"""Functions that the synchronous client implements with blocking calls. The asynchronous client has its own
`runtime.py`. Both files are written by hand."""

from __future__ import annotations

import time
from typing import BinaryIO

sleep_for = time.sleep


def read_from(file: BinaryIO, size: int) -> bytes:
    """Read at most `size` bytes."""
    return file.read(size)


def write_to(file: BinaryIO, block: bytes) -> None:
    """Write `block`."""
    file.write(block)
