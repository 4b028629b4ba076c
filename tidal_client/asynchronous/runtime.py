"""What differs between the two clients beyond `async` and `await`. The module of the same name in the other package is
its counterpart; both are written by hand."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

async_sleep_for = asyncio.sleep


async def async_read_from(file: BinaryIO, size: int) -> bytes:
    """Read at most `size` bytes in a thread, so that a slow disk does not stop the event loop."""
    return await asyncio.to_thread(file.read, size)


async def async_write_to(file: BinaryIO, block: bytes) -> None:
    """Write `block` in a thread."""
    await asyncio.to_thread(file.write, block)
