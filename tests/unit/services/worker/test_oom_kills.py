"""Out-of-memory kills are read from the most specific counter that the system has."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.worker.oom_kills import oom_kill_count

VERSION_2 = "low 0\nhigh 3\nmax 9\noom 2\noom_kill 4\noom_group_kill 0\n"
VERSION_1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a folder like /proc of a machine without cgroups whose kernel killed seven processes to free memory."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "vmstat").write_text("pgfault 12\noom_kill 7\n")
    return tmp_path / "proc"


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_version_2_counts_in_the_group_of_this_process(proc: Path, tmp_path: Path) -> None:
    put(proc / "self" / "cgroup", "0::/system.slice/tidal.service\n")
    put(tmp_path / "cg" / "system.slice" / "tidal.service" / "memory.events", VERSION_2)
    assert oom_kill_count(proc, tmp_path / "cg") == 4


def test_version_1_counts_in_the_group_of_this_process(proc: Path, tmp_path: Path) -> None:
    put(proc / "self" / "cgroup", "9:name=systemd:/x\n4:memory:/docker/abc\n2:cpu,cpuacct:/x\n0::/\n")
    put(tmp_path / "cg" / "memory" / "docker" / "abc" / "memory.oom_control", VERSION_1)
    assert oom_kill_count(proc, tmp_path / "cg") == 5


def test_a_container_that_sees_its_group_at_the_mount_point_reads_it_there(proc: Path, tmp_path: Path) -> None:
    put(proc / "self" / "cgroup", "4:memory:/docker/abc\n")
    put(tmp_path / "cg" / "memory" / "memory.oom_control", VERSION_1)
    assert oom_kill_count(proc, tmp_path / "cg") == 5


@pytest.mark.parametrize("groups", ["", "0::/\n", "not a line:\n::\n"])
def test_without_a_counter_of_the_group_that_of_the_machine_is_used(proc: Path, tmp_path: Path, groups: str) -> None:
    put(proc / "self" / "cgroup", groups)
    assert oom_kill_count(proc, tmp_path / "cg") == 7


def test_without_any_counter_the_result_is_0(tmp_path: Path) -> None:
    assert oom_kill_count(tmp_path / "none", tmp_path / "cg") == 0
