"""Measure how long `tidal up` takes until the api is ready, with a new and with an existing folder, and how long a stop
takes.

The reference is the documented limit of 15 s for each.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.local_stack import local_stack
from bench.report import Row, main

LIMIT_SECONDS = 15.0


def run(quick: bool) -> list[Row]:
    """Start and stop a stack four times, or twice when `quick`. The first start creates the database."""
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as temporary:
        folder = Path(temporary) / "instance"
        starts: list[float] = []
        stops: list[float] = []
        for _ in range(2 if quick else 4):
            with local_stack(folder) as stack:
                starts.append(stack.seconds_to_ready)
                stops.append(stack.stop())
    figures = {
        "time from `tidal up` with a new folder until the api is ready": starts[0],
        "time from `tidal up` with an existing folder until the api is ready (slowest)": max(starts[1:]),
        "time from SIGTERM to the exit of the last process (slowest)": max(stops),
    }
    return [Row(name, "s", seconds, LIMIT_SECONDS, "limit", 1.0, "at most") for name, seconds in figures.items()]


if __name__ == "__main__":
    main(run, __doc__)
