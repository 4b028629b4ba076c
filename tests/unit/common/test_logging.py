"""An invalid log level stops no process.

Each case runs in a new process, because a process configures logging only once.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from common.config import PROJECT_ROOT

CODE = "from common.logging import configure, get_logger; configure('test'); get_logger('a').info('still here')"


@pytest.mark.parametrize(
    ("level", "lines", "warned"), [("info", 1, False), ("WARNING", 0, False), ("loud", 2, True), ("0", 2, True)]
)
def test_an_unknown_level_is_info_and_a_warning(level: str, lines: int, warned: bool) -> None:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "TIDAL_LOG_LEVEL": level}
    ended = subprocess.run([sys.executable, "-c", CODE], env=environ, capture_output=True, text=True)
    assert ended.returncode == 0 and len(ended.stderr.splitlines()) == lines
    assert ("not one of debug, info, warning, error; using info" in ended.stderr and level in ended.stderr) is warned
