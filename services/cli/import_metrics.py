"""Converts metrics of the original project to segments of the metrics archive (`metrics/<kind>-1-1.jsonl`, attempt 1).

Each line of `metrics.jsonl` is a JSON object with the step, the time and the values of one point. The file
`rl_training_metrics.json` has one of three forms: a list of objects like these lines; an object that contains such a
list under the key `points`, `metrics` or `history`; or an object that maps the name of each metric to the list of its
values. Entries that cannot be read are counted and skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.redis.keys import EVENT_METRICS, EVENT_RL_METRICS
from tidal_client.vocabulary import utc_text

STEP_NAMES = ("step", "iteration", "total_steps", "timestep", "global_step")
TIME_NAMES = ("timestamp", "time", "wall_time")
NOT_VALUES = frozenset({*STEP_NAMES, *TIME_NAMES})


def write_metrics(source: Path, experiment: Path) -> tuple[int, int]:
    """Convert metrics.jsonl. Return (number of points written, number of lines skipped)."""
    with source.open(encoding="utf-8", errors="replace") as lines:
        return _write(experiment, EVENT_METRICS, (_parse(line) for line in lines if line.strip()))


def write_rl_metrics(source: Path, experiment: Path) -> tuple[int, int]:
    """Convert rl_training_metrics.json. Return (number of points written, number of entries skipped)."""
    content = _parse(source.read_text(encoding="utf-8", errors="replace"))
    return _write(experiment, EVENT_RL_METRICS, _points(content))


def _points(content: Any) -> Iterator[Any]:
    if isinstance(content, Mapping):
        for key in ("points", "metrics", "history"):
            if isinstance(content.get(key), list | Mapping):
                yield from _points(content[key])
                return
        columns = {name: values for name, values in content.items() if isinstance(values, list) and values}
        for index in range(max(map(len, columns.values()), default=0)):
            yield {"step": index, **{name: values[index] for name, values in columns.items() if index < len(values)}}
    elif isinstance(content, list):
        yield from content
    else:
        yield None


def _write(experiment: Path, kind: str, points: Iterable[Any]) -> tuple[int, int]:
    written = skipped = 0
    path = experiment / "metrics" / f"{kind}-1-1.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for point in points:
            line = _line(point)
            if line is None:
                skipped += 1
                continue
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            written += 1
    return written, skipped


def _line(point: Any) -> dict[str, Any] | None:
    if not isinstance(point, Mapping):
        return None
    step = next((point[name] for name in STEP_NAMES if isinstance(point.get(name), int | float)), None)
    values = {
        str(name): float(value) if math.isfinite(value) else None
        for name, value in point.items()
        if name not in NOT_VALUES and isinstance(value, int | float) and not isinstance(value, bool)
    }
    if step is None or not math.isfinite(step) or not values:
        return None
    stamp = next((point[name] for name in TIME_NAMES if name in point), None)
    return {"step": int(step), "time": _time(stamp), "attempt": 1, "values": values}


def _time(value: Any) -> str:
    """Convert a time in Unix seconds or ISO 8601 format to UTC text. An invalid time becomes the beginning of 1970."""
    try:
        moment = (
            datetime.fromtimestamp(value, UTC)
            if isinstance(value, int | float)
            else datetime.fromisoformat(str(value)).astimezone(UTC)
        )
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return utc_text(moment)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
