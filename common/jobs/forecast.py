"""When waiting jobs will probably start, pure: claims played forward over the slots that there are.

Known are the jobs in the order they are claimed, what holds a place now and for how long still, the limits, and what
a job of each type usually takes. Where one of these is not known, the answer for those behind it is not either. Leaves
out: jobs that nobody has submitted yet, and workers that come or go.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class WaitingJob(NamedTuple):
    """A pending job."""

    job_id: str
    type: str
    due_in: float = 0.0
    """Seconds until it may start (`notBefore`)."""


@dataclass(frozen=True)
class LeasedJob:
    """A job that holds a place of its type."""

    type: str
    seconds_left: float | None
    """None: nobody knows."""
    on_worker: bool = True
    """Whether it takes a worker too; a stale one does not."""


def predict_starts(
    waiting: Sequence[WaitingJob],
    busy: Sequence[LeasedJob],
    *,
    limits: Mapping[str, int | None],
    workers: int,
    usual_seconds: Mapping[str, float],
    last: Container[str] = (),
) -> dict[str, float]:
    """Seconds until each of `waiting` (in claim order) starts; jobs about which nothing can be said are missing.

    A type missing from `limits`, or None there, has no limit; one missing from `usual_seconds` has never finished.
    It ends where a job of `last` would start: behind it wait others that are not in `waiting`.
    """
    taken: dict[str, int] = {}
    used = 0
    releases: list[tuple[float, str, bool]] = []
    for job in busy:
        taken[job.type] = taken.get(job.type, 0) + 1
        used += job.on_worker
        if job.seconds_left is not None:
            heapq.heappush(releases, (job.seconds_left, job.type, job.on_worker))
    arrivals: list[tuple[float, int, WaitingJob]] = []
    lines: dict[str, list[tuple[int, WaitingJob]]] = {}
    for rank, job_waiting in enumerate(waiting):
        if job_waiting.due_in > 0:
            heapq.heappush(arrivals, (job_waiting.due_in, rank, job_waiting))
        else:  # ranks ascend, so these lists are heaps
            lines.setdefault(job_waiting.type, []).append((rank, job_waiting))
    starts: dict[str, float] = {}
    now = 0.0
    while True:
        while arrivals and arrivals[0][0] <= now:
            _, rank, job_waiting = heapq.heappop(arrivals)
            heapq.heappush(lines.setdefault(job_waiting.type, []), (rank, job_waiting))
        while releases and releases[0][0] <= now:
            _, job_type, on_worker = heapq.heappop(releases)
            taken[job_type] -= 1
            used -= on_worker
        while used < workers:
            open_lines = [
                line for name, line in lines.items() if line and _has_place(limits.get(name), taken.get(name, 0))
            ]
            if not open_lines:
                break
            _, chosen = heapq.heappop(min(open_lines, key=lambda line: line[0][0]))
            if chosen.job_id in last:
                return starts
            starts[chosen.job_id] = now
            taken[chosen.type] = taken.get(chosen.type, 0) + 1
            used += 1
            if chosen.type in usual_seconds:
                heapq.heappush(releases, (now + usual_seconds[chosen.type], chosen.type, True))
        following = min(arrivals[0][0] if arrivals else math.inf, releases[0][0] if releases else math.inf)
        if following == math.inf:
            return starts
        now = following


def _has_place(limit: int | None, taken: int) -> bool:
    return limit is None or taken < limit
