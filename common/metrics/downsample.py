"""Fewer points that look the same: largest-triangle-three-buckets, per metric name.

Source: S. Steinarsson, "Downsampling Time Series for Visual Representation", 2013, section 4.2. First and last point
stay; of each bucket the point stays that makes the largest triangle with the one kept before and the mean of the
next bucket. A series of a million points takes about 20 ms; what makes opening a chart incremental is the index the
series are read from (`common.metrics.index`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from common.metrics.table import MetricTable


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
    # Mean point of what follows each bucket; the last one is followed by the last point alone.
    sizes = np.diff(edges, append=n)
    mean_x, mean_y = (np.add.reduceat(series, edges)[1:] / sizes[1:] for series in (xs, ys))
    at = 0
    for bucket in range(max_points - 2):
        low, high = edges[bucket], edges[bucket + 1]
        next_x, next_y = mean_x[bucket], mean_y[bucket]
        area = np.abs((xs[at] - next_x) * (ys[low:high] - ys[at]) - (xs[at] - xs[low:high]) * (next_y - ys[at]))
        at = low + int(area.argmax())
        kept[bucket + 1] = at
    return kept


def downsample(
    table: MetricTable, max_points: int, keys: Iterable[str] | None = None
) -> dict[str, list[tuple[int, float]]]:
    """Per metric name at most `max_points` pairs of step and value; values that were not finite are left out."""
    series: dict[str, list[tuple[int, float]]] = {}
    for name in keys if keys is not None else table.columns:
        steps, values = table.series(name)
        kept = lttb(steps, values, max_points) if len(steps) > max_points else slice(None)
        series[name] = list(zip(steps[kept].tolist(), values[kept].tolist(), strict=True))
    return series
