"""Functions that the asynchronous client implements with asyncio. The synchronous client has its own `runtime.py`.
Both files are written by hand."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

async_sleep_for = asyncio.sleep


async def async_read_from(file: BinaryIO, size: int) -> bytes:
    """Read at most `size` bytes in a thread, so that other tasks continue while the disk is read."""
    return await asyncio.to_thread(file.read, size)


async def async_write_to(file: BinaryIO, block: bytes) -> None:
    """Write `block` in a thread."""
    await asyncio.to_thread(file.write, block)
