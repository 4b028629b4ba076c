"""Limits the private memory of this process with RLIMIT_DATA.

Only Linux enforces the limit; on other systems these functions have no effect. Leaves out memory mapped from files.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def limit_memory(count: int) -> None:
    """Limit the memory to `count` bytes beyond the present use for good; beyond it, allocations raise or abort."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (used := _used()) is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (used + count, used + count))


@contextmanager
def limited_memory(count: int) -> Iterator[None]:
    """Limit the memory in the same way while the block runs, for all threads of the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = _used()
    if used is None or (soft != resource.RLIM_INFINITY and soft <= used + count):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (used + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _used() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
    except (OSError, StopIteration):
        return None
