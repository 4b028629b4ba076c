"""Fewer points that look the same: largest-triangle-three-buckets, per metric name.

Source: S. Steinarsson, "Downsampling Time Series for Visual Representation", 2013, section 4.2. First and last point
stay; of each bucket the point stays that makes the largest triangle with the one kept before and the mean of the
next bucket. Leaves out: incremental computation over a growing series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from common.metrics.reader import MetricPoint


def lttb(x: npt.ArrayLike, y: npt.ArrayLike, max_points: int) -> npt.NDArray[np.intp]:
    """Indices, ascending, of at most `max_points` points of the series (x ascending, y finite, both (N,)).

    Raises ValueError for fewer than three points asked or arrays of different length.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"x {xs.shape} and y {ys.shape} must be two series of one length")
    if max_points < 3:
        raise ValueError(f"max_points {max_points} is below 3")
    n = len(xs)
    if n <= max_points:
        return np.arange(n)
    # Bucket b of the max_points - 2 inner ones is [edges[b], edges[b + 1]).
    edges = np.floor(np.linspace(1, n - 1, max_points - 1)).astype(np.intp)
    kept = np.empty(max_points, dtype=np.intp)
    kept[0], kept[-1] = 0, n - 1
    at = 0
    for bucket in range(max_points - 2):
        low, high = edges[bucket], edges[bucket + 1]
        following = slice(high, edges[bucket + 2] if bucket + 2 < len(edges) else n)
        next_x, next_y = xs[following].mean(), ys[following].mean()
        area = np.abs((xs[at] - next_x) * (ys[low:high] - ys[at]) - (xs[at] - xs[low:high]) * (next_y - ys[at]))
        at = low + int(area.argmax())
        kept[bucket + 1] = at
    return kept


def downsample(
    points: Sequence[MetricPoint], max_points: int, keys: Iterable[str] | None = None
) -> dict[str, list[tuple[int, float]]]:
    """Per metric name at most `max_points` pairs of step and value; values that were not finite are left out."""
    names = list(keys) if keys is not None else sorted({name for point in points for name in point.values})
    series: dict[str, list[tuple[int, float]]] = {}
    for name in names:
        pairs = [(p.step, value) for p in points if (value := p.values.get(name)) is not None]
        if len(pairs) > max_points:
            steps, values = zip(*pairs, strict=True)
            pairs = [pairs[index] for index in lttb(steps, values, max_points)]
        series[name] = pairs
    return series
