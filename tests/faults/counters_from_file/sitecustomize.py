"""Makes a worker read the kernel's counters from files of the test.

Python imports this module if its folder is in PYTHONPATH. TIDAL_TEST_COUNTERS is the folder with the files. This is for
machines on which no memory cgroup can be created. Nothing else in the worker is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

if folder := os.environ.get("TIDAL_TEST_COUNTERS"):
    from services.worker.oom_kills import oom_kill_count

    oom_kill_count.__defaults__ = (Path(folder) / "proc", Path(folder) / "cgroup")
