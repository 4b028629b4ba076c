"""The calibration of an idle worker: it ends for a job, starts again, and is sent with the heartbeats."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config import Settings
from common.prediction.calibration import parse_calibration, write_calibration
from common.prediction.machine import this_machine
from services.worker import calibration as module
from services.worker.calibration import Calibrator
from tests.unit.common.prediction.calibrations import calibration

MEASURE = """
import pathlib, sys, time
source, started, folder = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[4]
with started.open("a") as file:
    file.write("started\\n")
if len(started.read_text().splitlines()) == 1:
    time.sleep(60)
target = pathlib.Path(folder, "calibration", source.rsplit("/", 1)[1])
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(pathlib.Path(source).read_text())
"""
"""A measurement that takes a minute the first time, and is finished at once the second time."""


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "the condition did not become true"
        time.sleep(0.01)


def test_a_job_stops_the_measurement_which_is_repeated_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = write_calibration(tmp_path / "source", calibration(this_machine()))
    started = tmp_path / "started"
    command = [sys.executable, "-c", MEASURE, str(stored), str(started)]
    monkeypatch.setattr(module, "trainer_command", lambda configured: command)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    calibrator = Calibrator(Settings(_env_file=None, calibrate=True, data_dir=tmp_path / "data"))
    try:
        assert "calibration" not in calibrator.describe()
        wait_for(lambda: started.exists() and started.read_text())
        calibrator.job_began()
        calibrator.job_ended()
        wait_for(lambda: calibrator.calibration)
        sent = calibrator.describe()
        assert parse_calibration(sent["calibration"]) == calibration(this_machine())
        assert sent["machine"] == this_machine().model_dump_json()
    finally:
        calibrator.close()


def test_a_measurement_that_a_signal_ends_by_itself_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    script = "import os, sys; open(sys.argv[1], 'a').write('x'); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(module, "trainer_command", lambda configured: [sys.executable, "-c", script, str(started)])
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    calibrator = Calibrator(Settings(_env_file=None, calibrate=True, data_dir=tmp_path / "data"))
    thread = calibrator._thread
    assert thread is not None
    thread.join(20)
    ended = not thread.is_alive()
    calibrator.close()
    assert ended
    assert started.read_text() == "x" * module.MOST_ATTEMPTS


def test_a_job_that_begins_as_the_idle_time_ends_prevents_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    command = [sys.executable, "-c", MEASURE, "unused", str(started)]
    monkeypatch.setattr(module, "trainer_command", lambda configured: command)
    calibrator = Calibrator(Settings(_env_file=None, calibrate=False, data_dir=tmp_path / "data"))
    waits = []

    def wait(timeout: float | None = None) -> bool:
        # The idle time ends without a notification, but a job or the end of the worker was first to take the lock.
        waits.append(timeout)
        if len(waits) == 1:
            calibrator._jobs = 1
        else:
            calibrator._closed = True
        return False

    monkeypatch.setattr(calibrator._changed, "wait", wait)
    assert calibrator._start_when_idle() is False
    assert waits == [module.IDLE_SECONDS, None]
    assert calibrator._child is None


def test_a_stored_calibration_is_used_and_a_disabled_one_is_not_measured(tmp_path: Path) -> None:
    off = Calibrator(Settings(_env_file=None, calibrate=False, data_dir=tmp_path))
    assert off.calibration is None
    off.close()
    write_calibration(tmp_path, calibration(this_machine()))
    known = Calibrator(Settings(_env_file=None, calibrate=True, data_dir=tmp_path))
    assert known.calibration == calibration(this_machine())
    known.close()
