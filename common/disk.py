"""What a disk has left, and the reserve of it that Tidal leaves free.

Below the reserve trainings stand still (`common.training.disk_hold`), uploads are refused and the health process tidies
up. Leaves out: quotas and inodes, which no figure shows beforehand; a write that is refused shows them (`is_full`).
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
LOOK_SECONDS = 1.0
ALL_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a write fails with when there is no room for it: the disk, the quota, the largest size of a file."""
_SAID = tuple(f"os error {number})" for number in ALL_FULL)
"""The same as the error of a library that hides the number writes it."""


def is_full(error: OSError) -> bool:
    """Whether a write failed because there was no room, so that it can succeed later as it is."""
    return error.errno in ALL_FULL or any(said in str(error) for said in _SAID)


def free_bytes(folder: Path) -> int:
    """What this user may still write to the file system of `folder`, or of the nearest folder above that exists."""
    existing = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return shutil.disk_usage(existing).free


@dataclass(frozen=True)
class Shortage:
    """A disk that has too little room."""

    disk: str
    """What it holds: "experiments" or "data"."""
    free_bytes: int
    needed_bytes: int
    reserve_bytes: int = 0
    reason: str | None = None
    """What a write that was refused failed with, though more than `needed_bytes` may be free (a quota)."""

    def __str__(self) -> str:
        return shortage_text(self.disk, self.free_bytes, self.needed_bytes, self.reason)

    def details(self) -> dict[str, Any]:
        """For an event."""
        left_out = {"reserve_bytes"}
        return {name: value for name, value in asdict(self).items() if value is not None and name not in left_out}


def shortage_text(disk: str, free: int, needed: int, reason: str | None = None) -> str:
    """In words: `12 MiB are free on the disk of the experiments, 1,024 MiB are needed`."""
    if reason is not None and free >= needed:
        return f"the disk of the {disk} refuses writes ({reason})"
    return f"{free // MIB:,} MiB are free on the disk of the {disk}, {-(-needed // MIB):,} MiB are needed"


class DiskReserve:
    """Looks at the disks of one process. `folders` by what they hold; a reserve of 0 leaves nothing free."""

    def __init__(self, folders: Mapping[str, Path], reserve_bytes: int) -> None:
        self._folders = dict(folders)
        self.reserve_bytes = reserve_bytes
        self._enough: dict[tuple[tuple[str, ...], int], float] = {}
        """When a question was last answered with no."""

    def needed_bytes(self, next_write_bytes: int = 0) -> int:
        """The reserve, or more where the next write is so large that it would leave less than a quarter of it."""
        if not self.reserve_bytes:
            return 0
        return max(self.reserve_bytes, next_write_bytes + self.reserve_bytes // 4)

    def shortage(self, *disks: str, next_write_bytes: int = 0) -> Shortage | None:
        """The first of `disks` that has too little room; what had enough is looked at again after a second.

        A disk that cannot be asked has enough: writing will tell.
        """
        needed, key = self.needed_bytes(next_write_bytes), (disks, next_write_bytes)
        if time.monotonic() - self._enough.get(key, -LOOK_SECONDS) < LOOK_SECONDS:
            return None
        for disk in disks:
            try:
                free = free_bytes(self._folders[disk])
            except OSError:
                continue
            if free < needed:
                return Shortage(disk, free, needed, self.reserve_bytes)
        self._enough[key] = time.monotonic()
        return None

    def refused(self, disk: str, reason: str, *, next_write_bytes: int = 0) -> Shortage:
        """The shortage that a refused write shows."""
        try:
            free = free_bytes(self._folders[disk])
        except OSError:
            free = 0
        return Shortage(disk, free, self.needed_bytes(next_write_bytes), self.reserve_bytes, reason)
