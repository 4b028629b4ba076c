"""Lets a worker read the kernel's counters from TIDAL_TEST_COUNTERS, a folder of the test's own; for PYTHONPATH.

For machines on which no memory cgroup can be made. Everything else of the worker is as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

if folder := os.environ.get("TIDAL_TEST_COUNTERS"):
    from services.worker.oom_kills import oom_kill_count

    oom_kill_count.__defaults__ = (Path(folder) / "proc", Path(folder) / "cgroup")
