"""Metrics of an experiment for charts: from the archive's index, thinned per name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from common.artifacts import ArtifactStore
from common.errors import InvalidInputError
from common.metrics import downsample, metric_names, read_table
from tidal_client.wire.metrics import MetricPointReply, MetricsReply, Point

LARGE_BYTES = 16 * 1024 * 1024
"""Size of an index from which on reading one takes memory worth counting (about twice its size)."""
_large = threading.BoundedSemaphore(2)
"""So many large ones are read at the same time; the others wait."""


def read_metrics(
    store: ArtifactStore,
    experiment_id: str,
    kind: Literal["metrics", "rl-metrics"],
    *,
    keys: list[str] | None,
    mode: Literal["recent", "historical"],
    window: int,
    max_points: int,
    from_step: int | None = None,
    to_step: int | None = None,
    stream_cursor: str | None,
) -> MetricsReply:
    """The points from `from_step` to `to_step`, downsampled per name; in mode recent the last `window` of them.

    InvalidInputError for a range that ends before it begins.
    """
    if from_step is not None and to_step is not None and from_step > to_step:
        message = f"{from_step} lies beyond toStep {to_step}"
        raise InvalidInputError.at("query.fromStep", message)
    folder = store.experiment(experiment_id)
    with limit_large_reads(folder / "metrics" / f"{kind}.index"):
        table = read_table(folder, kind, keys).between(from_step, to_step)
        if mode == "recent":
            table = table.last(window)
        # Without a column asked for no block tells which names there are.
        names = table.names or metric_names(folder, kind)
        wanted = names if keys is None else [name for name in keys if name in names]
        series = downsample(table, max_points, wanted)
        diverged = {name: int(steps[0]) for name in wanted if len(steps := table.non_finite(name))}
        newest = table.newest()
    return MetricsReply(
        experiment_id=experiment_id,
        mode=mode,
        keys=wanted,
        available_keys=names,
        total_points=table.points(),
        series={
            name: [Point.model_construct(step=step, value=value) for step, value in pairs]
            for name, pairs in series.items()
        },
        diverged=diverged,
        last=MetricPointReply(**newest.as_dict()) if newest is not None else None,
        stream_cursor=stream_cursor,
    )


@contextmanager
def limit_large_reads(index: Path) -> Iterator[None]:
    """Wait for one's turn to read an index, where it is large."""
    try:
        large = index.stat().st_size >= LARGE_BYTES
    except OSError:
        large = False
    if not large:
        yield
        return
    with _large:
        yield
