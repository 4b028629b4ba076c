"""Counts the processes that the kernel has killed because memory ran out, as near to this one as the kernel tells.

The memory cgroup of this process (version 2: memory.events, version 1: memory.oom_control) counts the victims among
its own processes, to which a trainer belongs; /proc/vmstat, the last resort, counts those of the whole machine. A
container without a cgroup namespace sees its own group at the mount point, under another name than its own path.
"""

from __future__ import annotations

from pathlib import Path

COUNTER = "oom_kill"


def oom_kill_count(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Kills so far; 0 where it is not told. Only the difference of two answers means anything."""
    for file in (*_cgroup_files(proc, cgroups), proc / "vmstat"):
        count = _read(file)
        if count is not None:
            return count
    return 0


def _cgroup_files(proc: Path, cgroups: Path) -> list[Path]:
    """Where the counter may be, the most telling first. Lines of /proc/self/cgroup: number:controllers:path."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            mount, name = cgroups, "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = cgroups / "memory", "memory.oom_control"
        else:
            continue
        found += [mount / path.lstrip("/") / name, mount / name]
    return found


def _read(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == COUNTER:
                return int(value)
    except (OSError, ValueError):
        pass
    return None
