"""Metrics of an experiment."""

from __future__ import annotations

from typing import Annotated, Literal

from .base import OpenEnum, Reply


class Point(Reply):
    """One value of a metric."""

    step: int
    value: float


class MetricPointReply(Reply):
    """All metrics that a trainer reported at one step."""

    step: int
    time: str
    attempt: int
    values: dict[str, float | None]


class MetricsReply(Reply):
    """Metrics of an experiment."""

    experiment_id: str
    mode: Annotated[Literal["recent", "historical"], OpenEnum()]
    keys: list[str]
    """Names of the metrics in this reply."""
    available_keys: list[str]
    total_points: int
    """Number of points in the range before downsampling."""
    series: dict[str, list[Point]]
    """For each metric at most `maxPoints` points, downsampled with largest-triangle-three-buckets."""
    diverged: dict[str, int]
    """Metrics in this reply with a value that is not finite (NaN or infinity), each with the first step of such a
    value, at which training diverged. These values are omitted from `series` and null in `last`."""
    last: MetricPointReply | None = None
    """The newest point in the range, with all metrics."""
    stream_cursor: str | None = None
    """Cursor for the experiment's stream: with `?since=<streamCursor>`, the stream misses no point after this reply,
    but may repeat points of it."""
