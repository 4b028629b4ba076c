"""A disk for the experiments of one test that can be filled: a small file system where one can be mounted (root).

Elsewhere the reserve is set to what is free on the machine but for a little, and a file takes more than that: trainings
wait all the same, and no write is refused.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.disk import MIB, free_bytes

SIZE_MB = 300
RESERVE_MB = 64


class SmallDisk:
    """`folder` holds the experiments; `reserve_mb` is what the processes are to be given."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        self.reserve_mb = RESERVE_MB if mounted else free_bytes(folder) // MIB - 2 * SIZE_MB
        self._ballast = folder / "ballast"

    def fill(self, *, leave_mb: int) -> None:
        """Take what is free but for `leave_mb`: of the small disk, or else of its reserve."""
        size = free_bytes(self.folder) - leave_mb * MIB if self.mounted else 4 * SIZE_MB * MIB
        with self._ballast.open("wb", buffering=0) as file:
            if leave_mb or not self.mounted:
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                _fill_up(file.fileno())

    def empty(self) -> None:
        """Free it again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A file system of 300 MB at `folder`, which is made."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    disk = SmallDisk(folder, mounted=mounted)
    try:
        yield disk
    finally:
        disk.empty()
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill_up(descriptor: int) -> None:
    """To the last byte."""
    for size in (MIB, 2**12):
        block = bytes(size)
        try:
            while True:
                os.write(descriptor, block)
        except OSError:
            continue
