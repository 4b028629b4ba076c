"""Counts the processes that the kernel has killed because memory ran out.

The counter of this process's memory cgroup is used (version 2: memory.events, version 1: memory.oom_control). It covers
all processes of the cgroup, which includes the trainer. If there is no such counter, the counter of the whole machine
in /proc/vmstat is used. In a container without a cgroup namespace, the cgroup's files are directly at the mount point
and not at the path in /proc/self/cgroup; therefore both places are tried.
"""

from __future__ import annotations

from pathlib import Path

COUNTER = "oom_kill"


def oom_kill_count(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of kills so far; 0 if there is no counter.

    Only the difference between two results is meaningful, because the counter may have started long ago.
    """
    for file in (*_cgroup_files(proc, cgroups), proc / "vmstat"):
        count = _read(file)
        if count is not None:
            return count
    return 0


def _cgroup_files(proc: Path, cgroups: Path) -> list[Path]:
    """Return the files that may contain the counter. The file for the smallest cgroup comes first."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:  # A line has the form number:controllers:path.
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
