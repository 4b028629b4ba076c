"""On a full disk, a trainer's log is buffered in memory, and is written completely once there is space again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.worker import log_capture
from services.worker.log_capture import LogCapture
from tests.faults.small_disk import SmallDisk, small_disk

LINES = [f"line {number} {'x' * 40}\n" for number in range(500)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as found:
        if not found.mounted:
            pytest.skip("needs a file system of its own, which only root may mount")
        yield found


def write(capture: LogCapture, lines: list[str]) -> None:
    for line in lines:
        os.write(capture.write_fd, line.encode())


def wait_until_in(path: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_output_during_a_full_disk_is_in_the_log_once_there_is_space(disk: SmallDisk) -> None:
    disk.fill(leave_mb=0)
    path = disk.folder / "experiment" / "logs" / "1.log"
    capture = LogCapture(path, attempt=1)
    write(capture, LINES)
    assert not path.exists() or path.stat().st_size < sum(map(len, LINES))
    disk.empty()
    wait_until_in(path, LINES[-1])  # the lines are written although no further line arrives
    write(capture, LINES)
    capture.close()
    assert path.read_text() == "".join(LINES + LINES)


def test_output_beyond_the_backlog_is_counted(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_capture, "BACKLOG_BYTES", 1000)
    all_stored = threading.Event()
    store = LogCapture._store

    def store_and_report(capture: LogCapture, data: bytes) -> None:
        store(capture, data)
        if capture.tail.endswith(LINES[-1].strip()):
            all_stored.set()

    monkeypatch.setattr(LogCapture, "_store", store_and_report)
    disk.fill(leave_mb=0)
    path = disk.folder / "1.log"
    capture = LogCapture(path, attempt=1)
    write(capture, LINES)
    assert all_stored.wait(20)
    disk.empty()
    capture.close()
    kept, _, lost = path.read_text().rpartition("\n[tidal] ")
    assert "".join(LINES).startswith(kept)
    assert lost == f"{sum(map(len, LINES)) - len(kept)} bytes of output were dropped\n"
