"""Limits the private memory of this process with RLIMIT_DATA.

Only Linux enforces the limit; on other systems these functions have no effect. Memory mapped from files is not limited.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def limit_memory(count: int) -> None:
    """Permanently limit the memory to `count` bytes more than are in use now; allocations beyond it raise or abort."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (used := _used()) is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (used + count, used + count))


@contextmanager
def limited_memory(count: int) -> Iterator[None]:
    """Limit the memory as `limit_memory` does, for all threads of the process, until the `with` block ends."""
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
