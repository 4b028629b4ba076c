"""A memory cgroup (version 1 or 2) for one test. In such a group, the kernel kills processes when memory runs out.

`MemoryGroup.make` returns None if no cgroup can be created (without root, or with a read-only /sys).
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Self

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A cgroup with a memory limit.

    `add` moves a process into the cgroup. Processes that it starts afterwards are in the cgroup as well.
    """

    def __init__(self, folder: Path, counter: str) -> None:
        self.folder, self._counter = folder, counter

    @classmethod
    def make(cls, limit_bytes: int) -> Self | None:
        """Create a cgroup inside the cgroup of this process or, if that is not possible, at the root.

        Return None if a cgroup can be created in neither place.
        """
        own = _own_groups()
        for mount, path, limit, counter in (
            (ROOT / "memory", own.get("memory"), "memory.limit_in_bytes", "memory.oom_control"),
            (ROOT, own.get(""), "memory.max", "memory.events"),
        ):
            if path is None:
                continue
            for parent in (mount / path.lstrip("/"), mount):
                folder = parent / f"tidal-test-{uuid.uuid4().hex[:8]}"
                try:
                    folder.mkdir()
                except OSError:
                    continue
                try:
                    (folder / limit).write_text(str(limit_bytes))
                    return cls(folder, counter)
                except OSError:
                    folder.rmdir()
        return None

    def add(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    @property
    def oom_kills(self) -> int:
        """Number of processes in this cgroup that the kernel has killed because memory ran out."""
        lines = (self.folder / self._counter).read_text().splitlines()
        return next(int(value) for name, _, value in (line.partition(" ") for line in lines) if name == "oom_kill")

    def remove(self) -> None:
        """Remove the cgroup. Call this after its processes have ended."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            # The kernel removes a process from the cgroup shortly after its end; until then, the folder cannot be
            # removed.
            time.sleep(0.05)


def _own_groups() -> dict[str, str]:
    """Return {controller: cgroup path} of this process. The path of cgroup version 2 has the key ""."""
    lines = Path(f"/proc/{os.getpid()}/cgroup").read_text().splitlines() if ROOT.exists() else []
    return {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
