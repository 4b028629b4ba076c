"""Metrics of an experiment: points, series and the reply that contains them."""

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
    """The metrics of an experiment within the requested range of steps."""

    experiment_id: str
    mode: Annotated[Literal["recent", "historical"], OpenEnum()]
    keys: list[str]
    """Names of the metrics in this reply."""
    available_keys: list[str]
    total_points: int
    """Number of points in the requested range before downsampling."""
    series: dict[str, list[Point]]
    """{metric: points}, with at most `maxPoints` points per metric, downsampled by largest-triangle-three-buckets."""
    diverged: dict[str, int]
    """{metric: first step with a value that is not finite (NaN or infinity)}, for the metrics in this reply. Training
    diverged at this step. Such values are omitted from `series` and null in `last`."""
    last: MetricPointReply | None = None
    """The newest point in the requested range, with the values of all metrics."""
    stream_cursor: str | None = None
    """Cursor for the experiment's stream. A stream with `?since=<streamCursor>` misses no point that follows this
    reply, but may repeat points of this reply."""
