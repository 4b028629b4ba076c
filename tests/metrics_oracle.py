"""A slow reader of an experiment's metrics. Tests compare the results of `common.metrics.read_table` with its results.

It reads the files line by line and uses no index. For each step, the point of the highest attempt counts. A rewind line
invalidates the later points of earlier attempts. An incomplete last line, which a killed writer leaves, is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from common.metrics import MetricPoint


def read_metrics(
    directory: Path,
    kind: str,
    *,
    keys: Collection[str] | None = None,
    after_step: int | None = None,
    last: int | None = None,
) -> list[MetricPoint]:
    """Return the points of `kind` in the experiment folder `directory`, sorted by step.

    `keys` keeps only the values with these names, and drops points that have none of these values. `after_step` keeps
    only later steps. `last` keeps only the given number of newest points.
    """
    by_step: dict[int, MetricPoint] = {}
    rewinds: dict[int, int] = {}
    for line in _lines(directory / "metrics", kind):
        mark = line.get("rewind")
        if mark is not None:
            rewinds[mark["attempt"]] = mark["step"]
            continue
        values = line["values"]
        if keys is not None:
            values = {name: value for name, value in values.items() if name in keys}
            if not values:
                continue
        step, attempt = line["step"], line["attempt"]
        if after_step is not None and step <= after_step:
            continue
        known = by_step.get(step)
        if known is None or known.attempt < attempt:
            by_step[step] = MetricPoint(step, line["time"], attempt, values)
        elif known.attempt == attempt:
            by_step[step] = MetricPoint(step, line["time"], attempt, {**known.values, **values})
    points = [point for point in by_step.values() if not _void(point, rewinds)]
    points.sort(key=lambda point: point.step)
    return points if last is None else points[max(0, len(points) - last) :]


def _void(point: MetricPoint, rewinds: dict[int, int]) -> bool:
    return any(attempt > point.attempt and point.step > step for attempt, step in rewinds.items())


def _lines(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(f"{kind}-*-*.jsonl"), key=_order):
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    continue
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def _order(path: Path) -> tuple[int, int]:
    _, attempt, number = path.stem.rsplit("-", 2)
    return int(attempt), int(number)
