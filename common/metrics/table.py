"""Reads the valid points of an archive as columns: one series per metric name, merged from all attempts.

If several attempts reported a step, the points of the highest attempt are valid. A resumed attempt begins with a rewind
line, which voids later points of earlier attempts. A series leaves out values that were not finite. The points come
from the index, so a million of them take a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.metrics.index import MetricIndex
from common.metrics.index_block import Block, Floats, Steps
from tidal_client.vocabulary import utc_text

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """The values of one step. `time` is ISO 8601 in UTC; None stands for a value that was not finite."""

    step: int
    time: str
    attempt: int
    values: dict[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """Return the point as the JSON object that the HTTP API and the live stream use."""
        return {"step": self.step, "time": self.time, "attempt": self.attempt, "values": self.values}


@dataclass(frozen=True)
class MetricTable:
    """Valid points as columns, sorted by step. If several rows have the same step, together they are one point."""

    names: list[str]
    """All metric names in valid points, sorted, including those whose columns were not read."""
    steps: Steps
    times: Floats
    attempts: Steps
    columns: dict[str, Floats]

    def points(self) -> int:
        """Return the number of points; rows with the same step are one point."""
        return len(self.steps) if self._one_row_per_step else len(np.unique(self.steps))

    def last(self, count: int) -> MetricTable:
        """Return the rows of the `count` newest points."""
        distinct = self.steps if self._one_row_per_step else np.unique(self.steps)
        if len(distinct) <= count:
            return self
        return self._rows(slice(int(np.searchsorted(self.steps, distinct[-count])), None))

    def between(self, first: int | None, last: int | None) -> MetricTable:
        """Return the rows of the steps from `first` to `last`, both included; None means no limit."""
        begin = 0 if first is None else int(np.searchsorted(self.steps, first, "left"))
        end = len(self.steps) if last is None else int(np.searchsorted(self.steps, last, "right"))
        return self._rows(slice(begin, end))

    def _rows(self, rows: slice) -> MetricTable:
        columns = {name: column[rows] for name, column in self.columns.items()}
        return MetricTable(self.names, self.steps[rows], self.times[rows], self.attempts[rows], columns)

    def series(self, name: str) -> tuple[Steps, Floats]:
        """Return the steps and finite values of one metric; of several values for a step, only the newest."""
        steps, column = self._latest(name)
        finite = np.isfinite(column)
        return (steps, column) if finite.all() else (steps[finite], column[finite])

    def non_finite(self, name: str) -> Steps:
        """Return the steps at which the value of one metric was not finite, because training diverged."""
        steps, column = self._latest(name)
        return steps[np.isinf(column)]

    def _latest(self, name: str) -> tuple[Steps, Floats]:
        """Return the steps and values of one metric (NaN if missing); of several values for a step, only the newest."""
        column = self.columns.get(name)
        if column is None:
            return np.empty(0, np.int64), np.empty(0)
        steps = self.steps
        if len(steps) > 1 and not self._one_row_per_step:
            has_value = ~np.isnan(column)
            steps, column = steps[has_value], column[has_value]
            if len(steps):
                last = np.append(steps[1:] != steps[:-1], True)
                steps, column = steps[last], column[last]
        return steps, column

    @cached_property
    def _one_row_per_step(self) -> bool:
        return bool((self.steps[1:] > self.steps[:-1]).all())

    def newest(self) -> MetricPoint | None:
        """Return the point of the last step, with the values of all columns; None if the table is empty."""
        if not len(self.steps):
            return None
        begin = int(np.searchsorted(self.steps, self.steps[-1]))
        values: dict[str, float | None] = {}
        for name, column in self.columns.items():
            newest = column[begin:][~np.isnan(column[begin:])]
            if len(newest):
                values[name] = float(newest[-1]) if np.isfinite(newest[-1]) else None
        time = utc_text(datetime.fromtimestamp(self.times[begin] / 1000, UTC), "milliseconds")
        return MetricPoint(int(self.steps[-1]), time, int(self.attempts[begin]), values)


def read_table(
    experiment: Path, kind: str, names: Collection[str] | None = None, *, every_point: bool = False
) -> MetricTable:
    """Read the valid points of `kind` from the folder of an experiment.

    With `names`, the table has only these columns, and points with a value in none of them are left out. With
    `every_point`, such points are included.
    """
    by_attempt: dict[int, list[Block]] = {}
    rewinds: dict[int, int] = {}
    for block in MetricIndex(experiment, kind).blocks(names):
        by_attempt.setdefault(block.attempt, []).append(block)
        rewinds.update(block.rewinds)
    parts: list[tuple[Block, Mask]] = []
    # For each attempt after the present one: its lowest step, its highest step and all its steps.
    later_steps: list[tuple[int, int, Steps]] = []
    for attempt in sorted(by_attempt, reverse=True):
        blocks = by_attempt[attempt]
        limit = min((step for later, step in rewinds.items() if later > attempt), default=None)
        masks = [_valid_rows(block, limit, later_steps, every_point=every_point or names is None) for block in blocks]
        if attempt != min(by_attempt) and any(mask.any() for mask in masks):
            steps = np.concatenate([block.steps[mask] for block, mask in zip(blocks, masks, strict=True)])
            later_steps.append((int(steps.min()), int(steps.max()), steps))
        parts = [*zip(blocks, masks, strict=True), *parts]
    return _merged(parts)


def metric_names(directory: Path, kind: str) -> list[str]:
    """Return the names of all metrics in the archive, sorted."""
    return sorted({name for block in MetricIndex(directory, kind).blocks(()) for name in block.names})


def _valid_rows(
    block: Block, limit: int | None, later_steps: list[tuple[int, int, Steps]], *, every_point: bool
) -> Mask:
    """Return a mask of the rows up to step `limit` whose step no later attempt has reported.

    If `every_point` is false, a row must also have a value in at least one of the columns that were read.
    """
    mask = np.ones(len(block.steps), np.bool_)
    if limit is not None:
        mask &= block.steps <= limit
    if not every_point:
        has_value = np.zeros(len(block.steps), np.bool_)
        for column in block.columns.values():
            has_value |= ~np.isnan(column)
        mask &= has_value
    if len(block.steps):
        low, high = block.steps.min(), block.steps.max()
        for lowest, highest, steps in later_steps:
            if lowest <= high and highest >= low:
                mask &= ~np.isin(block.steps, steps)
    return mask


def _merged(parts: list[tuple[Block, Mask]]) -> MetricTable:
    """Join the valid rows to one table. Columns are removed from their blocks once joined, to save memory."""
    names = sorted({name for block, _ in parts for name in block.names})
    read = sorted({name for block, _ in parts for name in block.columns})
    all_valid = [bool(mask.all()) for _, mask in parts]
    sources = list(zip(parts, all_valid, strict=True))
    steps = np.concatenate(
        [np.empty(0, np.int64), *(b.steps if all_ else b.steps[mask] for (b, mask), all_ in sources)]
    )
    times = np.concatenate([np.empty(0), *(b.times if all_ else b.times[mask] for (b, mask), all_ in sources)])
    attempts = np.concatenate(
        [np.empty(0, np.int64), *(np.full(int(mask.sum()), block.attempt, np.int64) for block, mask in parts)]
    )
    columns: dict[str, Floats] = {}
    for name in read:
        column = columns[name] = np.empty(len(steps))
        at = 0
        for (block, mask), all_ in sources:
            rows = len(mask) if all_ else int(mask.sum())
            part = block.columns.pop(name, None)
            column[at : at + rows] = np.nan if part is None else part if all_ else part[mask]
            at += rows
    if (steps[1:] < steps[:-1]).any():
        order = np.argsort(steps, kind="stable")
        steps, times, attempts = steps[order], times[order], attempts[order]
        columns = {name: column[order] for name, column in columns.items()}
    return MetricTable(names, steps, times, attempts, columns)
