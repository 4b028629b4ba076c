"""A limit of the private memory of this process, which the kernel counts.

Linux counts it (RLIMIT_DATA); elsewhere there is no limit. Leaves out memory that is mapped from files.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def limit_memory(count: int) -> None:
    """At most `count` bytes beyond what is in use now, for good: what asks for more gets a MemoryError or aborts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (used := _used()) is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (used + count, used + count))


@contextmanager
def limited_memory(count: int) -> Iterator[None]:
    """The same for the length of a block, and for all threads."""
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
