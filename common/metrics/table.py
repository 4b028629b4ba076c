"""The points that count, as columns: attempts merged, rewinds applied, one series per name.

For each step the highest attempt counts, a rewind voids later points of earlier attempts, and a series leaves out
values that were not finite. Reads the index, so a million points take a fraction of a second. Leaves out: thinning
(`common.metrics.downsample`).
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
    """The values of one step. `time` is ISO 8601 in UTC; a value of None was not finite."""

    step: int
    time: str
    attempt: int
    values: dict[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """Return the point as the JSON object of the api and the live stream."""
        return {"step": self.step, "time": self.time, "attempt": self.attempt, "values": self.values}


@dataclass(frozen=True)
class MetricTable:
    """Rows by step; several rows may share one step, each with other values."""

    names: list[str]
    """Every name that occurs in points that count, sorted, whether its column was read or not."""
    steps: Steps
    times: Floats
    attempts: Steps
    columns: dict[str, Floats]

    def points(self) -> int:
        """Points with at least one of the columns; rows of one step are one point."""
        return len(self.steps) if self._one_row_per_step else len(np.unique(self.steps))

    def last(self, count: int) -> MetricTable:
        """The rows of the `count` newest points."""
        distinct = self.steps if self._one_row_per_step else np.unique(self.steps)
        if len(distinct) <= count:
            return self
        return self._rows(slice(int(np.searchsorted(self.steps, distinct[-count])), None))

    def between(self, first: int | None, last: int | None) -> MetricTable:
        """The rows of the steps `first` to `last`, both included; None: from the beginning, to the end."""
        begin = 0 if first is None else int(np.searchsorted(self.steps, first, "left"))
        end = len(self.steps) if last is None else int(np.searchsorted(self.steps, last, "right"))
        return self._rows(slice(begin, end))

    def _rows(self, rows: slice) -> MetricTable:
        columns = {name: column[rows] for name, column in self.columns.items()}
        return MetricTable(self.names, self.steps[rows], self.times[rows], self.attempts[rows], columns)

    def series(self, name: str) -> tuple[Steps, Floats]:
        """Steps, each once, and finite values of one column; of several values for a step the one reported last."""
        steps, column = self._latest(name)
        there = np.isfinite(column)
        return (steps, column) if there.all() else (steps[there], column[there])

    def non_finite(self, name: str) -> Steps:
        """Steps, each once, at which one column was reported with a value that was not finite: training diverged."""
        steps, column = self._latest(name)
        return steps[np.isinf(column)]

    def _latest(self, name: str) -> tuple[Steps, Floats]:
        """Steps and values of one column; of several values for a step the one reported last. NaN: none there."""
        column = self.columns.get(name)
        if column is None:
            return np.empty(0, np.int64), np.empty(0)
        steps = self.steps
        if len(steps) > 1 and not self._one_row_per_step:
            named = ~np.isnan(column)
            steps, column = steps[named], column[named]
            if len(steps):
                last = np.append(steps[1:] != steps[:-1], True)
                steps, column = steps[last], column[last]
        return steps, column

    @cached_property
    def _one_row_per_step(self) -> bool:
        return bool((self.steps[1:] > self.steps[:-1]).all())

    def newest(self) -> MetricPoint | None:
        """The last point, whole."""
        if not len(self.steps):
            return None
        begin = int(np.searchsorted(self.steps, self.steps[-1]))
        values: dict[str, float | None] = {}
        for name, column in self.columns.items():
            here = column[begin:][~np.isnan(column[begin:])]
            if len(here):
                values[name] = float(here[-1]) if np.isfinite(here[-1]) else None
        moment = datetime.fromtimestamp(self.times[begin] / 1000, UTC)
        stamp = utc_text(moment, "milliseconds")
        return MetricPoint(int(self.steps[-1]), stamp, int(self.attempts[begin]), values)


def read_table(
    experiment: Path, kind: str, names: Collection[str] | None = None, *, every_point: bool = False
) -> MetricTable:
    """The points of `kind` in the experiment's folder, by step.

    With `names` only these columns, and only points that have one of them unless `every_point`.
    """
    by_attempt: dict[int, list[Block]] = {}
    rewinds: dict[int, int] = {}
    for block in MetricIndex(experiment, kind).blocks(names):
        by_attempt.setdefault(block.attempt, []).append(block)
        rewinds.update(block.rewinds)
    parts: list[tuple[Block, Mask]] = []
    taken: list[tuple[int, int, Steps]] = []
    for attempt in sorted(by_attempt, reverse=True):
        blocks = by_attempt[attempt]
        limit = min((step for later, step in rewinds.items() if later > attempt), default=None)
        masks = [_counting(block, limit, taken, every_point=every_point or names is None) for block in blocks]
        if attempt != min(by_attempt) and any(mask.any() for mask in masks):
            steps = np.concatenate([block.steps[mask] for block, mask in zip(blocks, masks, strict=True)])
            taken.append((int(steps.min()), int(steps.max()), steps))
        parts = [*zip(blocks, masks, strict=True), *parts]
    return _merged(parts)


def metric_names(directory: Path, kind: str) -> list[str]:
    """Return the names of all metrics in the archive, sorted."""
    return sorted({name for block in MetricIndex(directory, kind).blocks(()) for name in block.names})


def _counting(block: Block, limit: int | None, taken: list[tuple[int, int, Steps]], *, every_point: bool) -> Mask:
    """The rows that count: not voided, not taken by a later attempt (lowest, highest, all of its steps), with one of
    the columns asked for."""
    mask = np.ones(len(block.steps), np.bool_)
    if limit is not None:
        mask &= block.steps <= limit
    if not every_point:
        there = np.zeros(len(block.steps), np.bool_)
        for column in block.columns.values():
            there |= ~np.isnan(column)
        mask &= there
    if len(block.steps):
        low, high = block.steps.min(), block.steps.max()
        for lowest, highest, steps in taken:
            if lowest <= high and highest >= low:
                mask &= ~np.isin(block.steps, steps)
    return mask


def _merged(parts: list[tuple[Block, Mask]]) -> MetricTable:
    """One table of the rows that count; takes the columns out of the blocks, so that memory holds them about once."""
    names = sorted({name for block, _ in parts for name in block.names})
    read = sorted({name for block, _ in parts for name in block.columns})
    whole = [bool(mask.all()) for _, mask in parts]
    each = list(zip(parts, whole, strict=True))
    steps = np.concatenate([np.empty(0, np.int64), *(b.steps if all_ else b.steps[mask] for (b, mask), all_ in each)])
    times = np.concatenate([np.empty(0), *(b.times if all_ else b.times[mask] for (b, mask), all_ in each)])
    attempts = np.concatenate(
        [np.empty(0, np.int64), *(np.full(int(mask.sum()), block.attempt, np.int64) for block, mask in parts)]
    )
    columns: dict[str, Floats] = {}
    for name in read:
        column = columns[name] = np.empty(len(steps))
        at = 0
        for (block, mask), all_ in each:
            rows = len(mask) if all_ else int(mask.sum())
            part = block.columns.pop(name, None)
            column[at : at + rows] = np.nan if part is None else part if all_ else part[mask]
            at += rows
    if (steps[1:] < steps[:-1]).any():
        order = np.argsort(steps, kind="stable")
        steps, times, attempts = steps[order], times[order], attempts[order]
        columns = {name: column[order] for name, column in columns.items()}
    return MetricTable(names, steps, times, attempts, columns)
