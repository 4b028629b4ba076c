"""Calibrates this machine: `python -m services.trainer --calibrate DATA_DIR` measures it and stores the result.

An idle worker starts the calibration; `tidal train lm` starts it before the first training on a machine. It runs in a
process of its own, because it measures the memory of a process, and because its random numbers must not change those of
a training.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common.child.lease_guard import die_with_parent
from common.errors import TidalError
from common.logging import configure, get_logger
from common.prediction.calibration import Calibration, read_calibration, write_calibration
from common.prediction.machine import this_machine

log = get_logger(__name__)

LIMIT_SECONDS = 120.0
"""Time in seconds after which an unfinished calibration is ended. On an idle machine, a calibration takes about 15 s,
including the start of torch."""


def run_calibration(arguments: list[str]) -> int:
    """Measure this machine and store the result in a data folder, the only one of the `arguments`.

    Return the exit status.
    """
    if len(arguments) != 1:
        sys.stderr.write("python -m services.trainer --calibrate needs one argument: the data folder\n")
        return 2
    die_with_parent()
    configure("trainer")
    from common.training.calibrate import calibrate

    data_dir = Path(arguments[0])
    try:
        path = write_calibration(data_dir, calibrate(data_dir))
    except TidalError as error:
        log.error("the calibration failed", reason=error.message)
        return 1
    log.info("the machine is calibrated", file=str(path))
    return 0


def calibrated(data_dir: Path) -> Calibration | None:
    """Return the calibration of this machine. If there is none yet, calibrate the machine in a child process first.

    Return None if that fails.
    """
    machine = this_machine()
    found = read_calibration(data_dir, machine)
    if found is not None:
        return found
    command = [sys.executable, "-m", "services.trainer", "--calibrate", str(data_dir)]
    try:
        subprocess.run(command, capture_output=True, timeout=LIMIT_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return read_calibration(data_dir, machine)
