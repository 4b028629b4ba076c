"""Calibrates the machine of a worker while the worker is idle (`common.prediction.calibration`).

The measurement runs once per kind of machine, in a trainer process with low priority. It ends at once when the worker
claims a job, and starts again when the worker is idle. The result is a file in the data folder; the worker sends it
with its heartbeats. `TIDAL_CALIBRATE=false` disables the measurement.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading

import psutil

from common.config import Settings
from common.config.child_environment import child_environment
from common.logging import get_logger
from common.prediction.calibration import Calibration, read_calibration
from common.prediction.machine import memory_limit, this_machine
from services.worker.child_process import trainer_command

log = get_logger(__name__)

IDLE_SECONDS = 5.0
"""Time in seconds for which the worker has to be idle before the measurement starts."""
MOST_ATTEMPTS = 3
"""Number of failed measurements after which this worker does not try again."""
LIMIT_SECONDS = 600.0
"""Time after which a measurement is killed and counts as failed. It usually takes 15 s."""
LOW_PRIORITY = 10
"""Nice value of the measurement."""


class Calibrator:
    """Starts and watches the measurement in a thread of its own, unless there is a calibration already."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._machine = settings, this_machine()
        self._calibration = read_calibration(settings.data_dir, self._machine)
        self._changed = threading.Condition()
        self._jobs = 0
        self._closed = False
        self._stopped = False
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        if self._calibration is None and settings.calibrate and not settings.trainer_command:
            self._thread = threading.Thread(target=self._run, name="calibration", daemon=True)
            self._thread.start()

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of this machine, if it is known."""
        return self._calibration

    def describe(self) -> dict[str, str]:
        """Return the fields of a heartbeat that describe the machine and its calibration."""
        known = {} if self._calibration is None else {"calibration": self._calibration.model_dump_json()}
        return {"machine": self._machine.model_dump_json(), "memoryLimitBytes": str(memory_limit()), **known}

    def job_began(self) -> None:
        """Stop the measurement, because a job needs the machine."""
        with self._changed:
            self._jobs += 1
            self._stop_child()
            self._changed.notify_all()

    def job_ended(self) -> None:
        """Allow the measurement again once no job runs."""
        with self._changed:
            self._jobs -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the measurement and end the thread."""
        with self._changed:
            self._closed = True
            self._stop_child()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        failures = 0
        while failures < MOST_ATTEMPTS and self._start_when_idle():
            child = self._child
            assert child is not None
            try:
                _, errors = child.communicate(timeout=LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                _, errors = child.communicate()
            with self._changed:
                self._child = None
                stopped = self._stopped
            self._calibration = read_calibration(self._settings.data_dir, self._machine)
            if self._calibration is not None:
                log.info("the machine is calibrated", machine=self._machine.key)
                return
            if not stopped:  # by a job or the end of the worker
                failures += 1
                log.warning("the calibration of the machine failed", log=errors.decode(errors="replace")[-500:])

    def _start_when_idle(self) -> bool:
        """Start the measurement as soon as the worker has been idle for IDLE_SECONDS.

        Return False if the measurement cannot be started, or if the worker ends before.
        """
        with self._changed:
            while not self._closed:
                if self._jobs:
                    self._changed.wait()
                elif not self._changed.wait(IDLE_SECONDS) and not self._jobs and not self._closed:
                    try:
                        self._child, self._stopped = self._start(), False
                    except OSError as error:
                        log.warning("the calibration of the machine cannot be started", error=str(error))
                        return False
                    return True
            return False

    def _start(self) -> subprocess.Popen[bytes]:
        command = [*trainer_command(""), "--calibrate", str(self._settings.data_dir.absolute())]
        child = subprocess.Popen(
            command,
            env=child_environment(os.environ, hub=False),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with contextlib.suppress(psutil.Error):
            psutil.Process(child.pid).nice(LOW_PRIORITY)
        return child

    def _stop_child(self) -> None:
        if self._child is not None:
            self._stopped = True
            self._child.kill()
