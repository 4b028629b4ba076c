"""A memory cgroup of a test's own, in which the kernel really kills; version 1 or 2, made where the process may.

`MemoryGroup.make` is None where no group can be made (no root, a read-only /sys).
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
    """`add` moves a process into it; what the process starts later is in it too."""

    def __init__(self, folder: Path, counter: str) -> None:
        self.folder, self._counter = folder, counter

    @classmethod
    def make(cls, limit_bytes: int) -> Self | None:
        """A group below this process's own, or at the top."""
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
        """Processes of this group that the kernel has killed for memory."""
        lines = (self.folder / self._counter).read_text().splitlines()
        return next(int(value) for name, _, value in (line.partition(" ") for line in lines) if name == "oom_kill")

    def remove(self) -> None:
        """Once its processes are gone."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.05)  # the kernel lets go of the last process a moment after its end


def _own_groups() -> dict[str, str]:
    """Path of this process per controller; "" is version 2."""
    lines = Path(f"/proc/{os.getpid()}/cgroup").read_text().splitlines() if ROOT.exists() else []
    return {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
