"""Largest-triangle-three-buckets equals a simple implementation and has the properties that charts need."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.metrics import MetricsWriter, downsample, lttb, read_table


def plain_lttb(x: list[float], y: list[float], count: int) -> list[int]:
    """Apply the algorithm of Steinarsson's thesis point by point."""
    n = len(x)
    edges = [math.floor(1 + b * (n - 2) / (count - 2)) for b in range(count - 1)]
    kept = [0]
    for b in range(count - 2):
        nxt = range(edges[b + 1], edges[b + 2] if b + 2 < len(edges) else n)
        cx, cy = sum(x[i] for i in nxt) / len(nxt), sum(y[i] for i in nxt) / len(nxt)
        a = kept[-1]

        def area(i: int, a: int = a, cx: float = cx, cy: float = cy) -> float:
            return abs((x[a] - cx) * (y[i] - y[a]) - (x[a] - x[i]) * (cy - y[a]))

        kept.append(max(range(edges[b], edges[b + 1]), key=area))
    return [*kept, n - 1]


@pytest.mark.parametrize(("n", "count"), [(100, 10), (1000, 50), (57, 56), (57, 3), (5000, 2000)])
def test_agrees_with_the_plain_algorithm(n: int, count: int) -> None:
    y = np.random.default_rng(n).normal(size=n).cumsum()
    x = np.arange(n)
    assert lttb(x, y, count).tolist() == plain_lttb(x.tolist(), y.tolist(), count)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(3, 60))
def test_keeps_the_ends_the_order_and_the_bound(values: list[float], count: int) -> None:
    kept = lttb(np.arange(len(values)), values, count)
    assert len(kept) == min(count, len(values))
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert (np.diff(kept) > 0).all()


def test_a_single_spike_survives() -> None:
    y = np.zeros(10_000)
    y[4321] = 5.0
    assert 4321 in lttb(np.arange(10_000), y, 100)


def test_each_name_is_thinned_on_its_own_and_gaps_are_left_out(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, None, "e1", "j1", 1) as writer:
        for s in range(1000):
            writer.add("metrics", s, {"loss": float(s), **({"validation_loss": 1.0} if s % 100 == 0 else {})})
        writer.add("metrics", 1000, {"loss": math.nan})
    series = downsample(read_table(tmp_path, "metrics"), 50)
    assert len(series["loss"]) == 50
    assert [step for step, _ in series["validation_loss"]] == list(range(0, 1000, 100))
    assert series["loss"][-1] == (999, 999.0)


def test_a_range_is_thinned_as_if_there_were_nothing_else(tmp_path: Path) -> None:
    loss = np.random.default_rng(7).normal(size=3000).cumsum().tolist()
    with MetricsWriter(tmp_path, None, "e1", "j1", 1) as writer:
        for step, value in enumerate(loss):
            writer.add("metrics", step, {"loss": value})
    found = downsample(read_table(tmp_path, "metrics").between(500, 1499), 60)["loss"]
    kept = plain_lttb(list(range(500, 1500)), loss[500:1500], 60)
    assert found == [(500 + i, loss[500 + i]) for i in kept]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        lttb([1, 2], [1, 2], 2)
    with pytest.raises(ValueError, match="the same N"):
        lttb([1, 2], [1], 3)
