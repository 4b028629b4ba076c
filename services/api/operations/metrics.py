"""Reads the metrics of an experiment for charts, from the index of its metrics archive, and downsamples each metric."""

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
"""An index with at least this number of bytes counts as large. To read an index, a process needs about twice the size
of the index as memory."""
_large = threading.BoundedSemaphore(2)
"""Limits how many large indexes are read at the same time."""


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
    """Return the points from `from_step` to `to_step`, each metric downsampled to at most `max_points`.

    In mode recent, only the last `window` points of each metric are used. Raises InvalidInputError if `to_step` is less
    than `from_step`.
    """
    if from_step is not None and to_step is not None and from_step > to_step:
        message = f"{from_step} is greater than toStep {to_step}; give a smaller fromStep"
        raise InvalidInputError.at("query.fromStep", message)
    folder = store.experiment(experiment_id)
    with limit_large_reads(folder / "metrics" / f"{kind}.index"):
        table = read_table(folder, kind, keys).between(from_step, to_step)
        if mode == "recent":
            table = table.last(window)
        # If no metrics are requested, no block has been read and the table contains no names; read the names from the
        # folder.
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
    """Limit concurrent reads of large indexes: wait while the maximum number of large indexes is already being read.
    Small indexes never wait."""
    try:
        large = index.stat().st_size >= LARGE_BYTES
    except OSError:
        large = False
    if not large:
        yield
        return
    with _large:
        yield
