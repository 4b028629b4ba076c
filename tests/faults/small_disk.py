"""A disk that a test can fill: a file system of 300 MB. Only root may mount it.

Without root, the folder is on the disk of the machine. Then the disk reserve is set slightly below the free space, and
`fill` writes a file that is larger than the difference. Trainings then wait for free space,
although no write fails.
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
    """A folder on a small disk. The test passes `reserve_mb` to its processes in TIDAL_DISK_RESERVE_MB."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        self.reserve_mb = RESERVE_MB if mounted else free_bytes(folder) // MIB - 2 * SIZE_MB
        self._ballast = folder / "ballast"

    def fill(self, *, leave_mb: int) -> None:
        """Fill the mounted disk until `leave_mb` are free.

        Without a mounted disk, write a file so large that the free space is below the reserve.
        """
        size = free_bytes(self.folder) - leave_mb * MIB if self.mounted else 4 * SIZE_MB * MIB
        with self._ballast.open("wb", buffering=0) as file:
            if leave_mb or not self.mounted:
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                _fill_up(file.fileno())

    def empty(self) -> None:
        """Delete the file that fills the disk."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Create `folder`, and mount a file system of 300 MB there if this process is allowed to."""
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
    """Write until the disk has no room for a block of 4 KiB."""
    for size in (MIB, 2**12):
        block = bytes(size)
        try:
            while True:
                os.write(descriptor, block)
        except OSError:
            continue
