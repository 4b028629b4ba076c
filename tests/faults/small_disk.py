"""A disk that a test can fill: a file system of 300 MB, which only root may mount.

Without root the folder stays on the disk of the machine. Then the reserve is set slightly below the free space and a
file takes more than the difference, so trainings wait for the disk although no write is refused.
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
    """A folder on a small disk; the test passes `reserve_mb` to its processes as TIDAL_DISK_RESERVE_MB."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        self.reserve_mb = RESERVE_MB if mounted else free_bytes(folder) // MIB - 2 * SIZE_MB
        self._ballast = folder / "ballast"

    def fill(self, *, leave_mb: int) -> None:
        """Fill the mounted disk up to `leave_mb`; without a mounted disk, take more than the reserve leaves."""
        size = free_bytes(self.folder) - leave_mb * MIB if self.mounted else 4 * SIZE_MB * MIB
        with self._ballast.open("wb", buffering=0) as file:
            if leave_mb or not self.mounted:
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                _fill_up(file.fileno())

    def empty(self) -> None:
        """Free the space again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Create `folder` and mount a file system of 300 MB there if this process may."""
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
    """Write until not even one block of 4 KiB fits."""
    for size in (MIB, 2**12):
        block = bytes(size)
        try:
            while True:
                os.write(descriptor, block)
        except OSError:
            continue
