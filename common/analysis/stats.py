"""Basic statistics of lists of numbers, with the same definitions as in the original project.

A population variance divides by n, an unbiased one by n − 1. Quantiles interpolate linearly at q·(n − 1). Sums use
`math.fsum`, so that results do not depend on the order of the values.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypedDict


class Summary(TypedDict):
    """Mean, population standard deviation, extremes and quartiles of a list of numbers; all 0 for an empty list."""

    mean: float
    std: float
    min: float
    max: float
    q25: float
    q50: float
    q75: float


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean; 0 for no values."""
    return math.fsum(values) / len(values) if values else 0.0


def variance(values: Sequence[float], *, unbiased: bool = False) -> float:
    """Return the population variance or, if `unbiased`, the unbiased variance.

    The result is 0 if there are no values or, for the unbiased variance, fewer than two.
    """
    n = len(values) - unbiased
    if n < 1:
        return 0.0
    center = mean(values)
    return math.fsum((value - center) ** 2 for value in values) / n


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the q-quantile of n ≥ 1 numbers in ascending order, by linear interpolation at q·(n − 1)."""
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def summarise(values: Sequence[float]) -> Summary:
    """Return the summary of `values`, which need not be sorted."""
    if not values:
        return Summary(mean=0.0, std=0.0, min=0.0, max=0.0, q25=0.0, q50=0.0, q75=0.0)
    ordered = sorted(values)
    return Summary(
        mean=mean(values),
        std=math.sqrt(variance(values)),
        min=ordered[0],
        max=ordered[-1],
        q25=quantile(ordered, 0.25),
        q50=quantile(ordered, 0.5),
        q75=quantile(ordered, 0.75),
    )


def welch_t(earlier: Sequence[float], later: Sequence[float]) -> float:
    """Return Welch's t of mean(earlier) − mean(later); 0 if a list has fewer than 2 values or both variances are 0."""
    if len(earlier) < 2 or len(later) < 2:
        return 0.0
    squared_error = variance(earlier, unbiased=True) / len(earlier) + variance(later, unbiased=True) / len(later)
    if squared_error == 0.0:
        return 0.0
    return (mean(earlier) - mean(later)) / math.sqrt(squared_error)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % bootstrap percentile interval of `statistic`, (0, 0) for no values.

    Its ends are the entries ⌊.025·(n − 1)⌋ and ⌊.975·(n − 1)⌋ of the sorted statistics of n resamples. Equal seeds give
    equal intervals.
    """
    if not values:
        return 0.0, 0.0
    generator = random.Random(seed)
    results = sorted(statistic(generator.choices(values, k=len(values))) for _ in range(resamples))
    return results[math.floor(0.025 * (resamples - 1))], results[math.floor(0.975 * (resamples - 1))]
