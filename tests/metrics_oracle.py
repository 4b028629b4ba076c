"""The points of an experiment's metrics, read line by line: what `common.metrics.read_table` is compared with.

For each step the point of the highest attempt counts; a rewind line voids later points of earlier attempts. A torn
last line (a writer that was killed) is skipped. Reads the files alone and knows no index.
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
    """The points of `kind` in the experiment folder `directory`, by step; empty when there are none.

    `keys` keeps only these values (points without any of them fall away), `after_step` only later steps, `last` only
    so many newest points.
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
