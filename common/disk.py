"""Measures the size of folders, and compares the free space of disks with the reserve that Tidal keeps free.

If less than the reserve is free, training jobs wait (`common.training.disk_wait`) and uploads are refused. If less than
twice the reserve is free, the health process deletes old logs and metrics early. Quotas and inodes are not measured; a
failed write shows that they are used up (`is_full`).
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
RECHECK_SECONDS = 1.0
"""Seconds for which a disk that had enough space is not checked again."""
ALL_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a write that failed because the disk is full, or a quota or the file size limit is reached."""
_TEXTS = tuple(f"os error {number})" for number in ALL_FULL)
"""The same errors, as texts in the messages of libraries that do not set `errno`."""


def is_full(error: OSError) -> bool:
    """Return whether a write failed because there was no space. The same write can succeed later."""
    return error.errno in ALL_FULL or any(text in str(error) for text in _TEXTS)


def size_of(folder: Path) -> int:
    """Return the size of all files below `folder` in bytes; files that disappear while they are counted count 0."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total


def free_bytes(folder: Path) -> int:
    """Return the bytes that this user may still write to the file system of `folder` or its nearest existing parent."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


@dataclass(frozen=True)
class Shortage:
    """A disk with too little free space."""

    disk: str
    """What is stored on the disk: "experiments" or "data"."""
    free_bytes: int
    needed_bytes: int
    reserve_bytes: int = 0
    reason: str | None = None
    """The error of the write that failed, or None if a check found too little space. A write can fail because of a
    quota even if `free_bytes` is larger than `needed_bytes`."""

    def __str__(self) -> str:
        return shortage_text(self.disk, self.free_bytes, self.needed_bytes, self.reason)

    def details(self) -> dict[str, Any]:
        """Return the fields for an event."""
        omitted = {"reserve_bytes"}
        return {name: value for name, value in asdict(self).items() if value is not None and name not in omitted}


def shortage_text(disk: str, free: int, needed: int, reason: str | None = None) -> str:
    """Return a text such as `12 MiB are free on the disk of the experiments, 1,024 MiB are needed`."""
    if reason is not None and free >= needed:
        return f"writing to the disk of the {disk} fails ({reason})"
    return f"{free // MIB:,} MiB are free on the disk of the {disk}, {-(-needed // MIB):,} MiB are needed"


class DiskReserve:
    """Checks the disks of one process. A reserve of 0 bytes disables the checks.

    `folders` maps "experiments" and "data" to a folder on the disk that stores them.
    """

    def __init__(self, folders: Mapping[str, Path], reserve_bytes: int) -> None:
        self._folders = dict(folders)
        self.reserve_bytes = reserve_bytes
        self._enough: dict[tuple[tuple[str, ...], int], float] = {}
        """{arguments of `shortage`: monotonic time in seconds at which a check last found enough space}."""

    def needed_bytes(self, next_write_bytes: int = 0) -> int:
        """Return the needed free space in bytes, which is 0 without a reserve.

        It is the reserve, or the next write plus a quarter of the reserve if that is more.
        """
        if not self.reserve_bytes:
            return 0
        return max(self.reserve_bytes, next_write_bytes + self.reserve_bytes // 4)

    def shortage(self, *disks: str, next_write_bytes: int = 0) -> Shortage | None:
        """Return the shortage of the first of `disks` with too little space, or None.

        After a check without a shortage, the same arguments return None for RECHECK_SECONDS without a new check. A disk
        whose free space cannot be read counts as having enough, because a write then reports the error.
        """
        needed, key = self.needed_bytes(next_write_bytes), (disks, next_write_bytes)
        if time.monotonic() - self._enough.get(key, -RECHECK_SECONDS) < RECHECK_SECONDS:
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
        """Return the shortage to report after a write to `disk` failed for `reason`."""
        try:
            free = free_bytes(self._folders[disk])
        except OSError:
            free = 0
        return Shortage(disk, free, self.needed_bytes(next_write_bytes), self.reserve_bytes, reason)
