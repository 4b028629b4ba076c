"""Makes a worker with this folder in PYTHONPATH read the kernel's counters from the test's folder TIDAL_TEST_COUNTERS.

This is for machines on which no memory cgroup can be created. It changes nothing else in the worker.
"""

from __future__ import annotations

import os
from pathlib import Path

if folder := os.environ.get("TIDAL_TEST_COUNTERS"):
    from services.worker.oom_kills import oom_kill_count

    oom_kill_count.__defaults__ = (Path(folder) / "proc", Path(folder) / "cgroup")
