"""Metrics of an experiment."""

from __future__ import annotations

from typing import Annotated, Literal

from .base import Open, Reply


class Point(Reply):
    """One value."""

    step: int
    value: float


class MetricPointReply(Reply):
    """One point as it was reported."""

    step: int
    time: str
    attempt: int
    values: dict[str, float | None]


class MetricsReply(Reply):
    """Metrics of an experiment."""

    experiment_id: str
    mode: Annotated[Literal["recent", "historical"], Open()]
    keys: list[str]
    """Names in this reply."""
    available_keys: list[str]
    total_points: int
    """Points in the range before downsampling."""
    series: dict[str, list[Point]]
    """Per name at most `maxPoints` points, chosen by largest-triangle-three-buckets."""
    diverged: dict[str, int]
    """Names in this reply that hold values which are not finite (NaN or infinity), each with the first step at which
    it does: training diverged there. Such values are left out of `series` and null in `last`."""
    last: MetricPointReply | None = None
    """The newest point in the range, whole."""
    stream_cursor: str | None = None
    """Following the experiment's stream with `?since=` this misses no point; points already here may come again."""
