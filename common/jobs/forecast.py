"""Predicts when waiting jobs will start, by simulating future claims, without the database or a clock.

The input consists of the waiting jobs in the order in which they will be claimed, the jobs that occupy slots and their
remaining times, and the limit and the usual duration of each type. If the duration of a job is unknown, jobs that must
wait for it have no prediction. Jobs that will be submitted later, and workers that start or stop, are not considered.
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
    """Seconds until the job may start (`notBefore`)."""


@dataclass(frozen=True)
class LeasedJob:
    """A job with a lease, which counts towards the limit of its type."""

    type: str
    seconds_left: float | None
    """Estimated remaining duration in seconds; None if it is unknown."""
    on_worker: bool = True
    """Whether the job also occupies a worker; a stale job does not."""


def predict_starts(
    waiting: Sequence[WaitingJob],
    leased: Sequence[LeasedJob],
    *,
    limits: Mapping[str, int | None],
    workers: int,
    usual_seconds: Mapping[str, float],
    stop_at: Container[str] = (),
) -> dict[str, float]:
    """Return the seconds until each job of `waiting` starts; jobs without a prediction are not included.

    `waiting` is in the order in which jobs are claimed. A type that is missing from `limits`, or whose limit is None,
    has no limit. A type that is missing from `usual_seconds` has an unknown duration. The simulation ends when a job
    of `stop_at` would start, because `waiting` does not contain the jobs after it.
    """
    leased_per_type: dict[str, int] = {}
    busy_workers = 0
    endings: list[tuple[float, str, bool]] = []
    for job in leased:
        leased_per_type[job.type] = leased_per_type.get(job.type, 0) + 1
        busy_workers += job.on_worker
        if job.seconds_left is not None:
            heapq.heappush(endings, (job.seconds_left, job.type, job.on_worker))
    arrivals: list[tuple[float, int, WaitingJob]] = []
    waiting_by_type: dict[str, list[tuple[int, WaitingJob]]] = {}
    for rank, job_waiting in enumerate(waiting):
        if job_waiting.due_in > 0:
            heapq.heappush(arrivals, (job_waiting.due_in, rank, job_waiting))
        else:  # a list in ascending order is already a heap
            waiting_by_type.setdefault(job_waiting.type, []).append((rank, job_waiting))
    starts: dict[str, float] = {}
    now = 0.0
    while True:
        while arrivals and arrivals[0][0] <= now:
            _, rank, job_waiting = heapq.heappop(arrivals)
            heapq.heappush(waiting_by_type.setdefault(job_waiting.type, []), (rank, job_waiting))
        while endings and endings[0][0] <= now:
            _, job_type, on_worker = heapq.heappop(endings)
            leased_per_type[job_type] -= 1
            busy_workers -= on_worker
        while busy_workers < workers:
            eligible = [
                jobs
                for name, jobs in waiting_by_type.items()
                if jobs and _has_free_slot(limits.get(name), leased_per_type.get(name, 0))
            ]
            if not eligible:
                break
            _, chosen = heapq.heappop(min(eligible, key=lambda jobs: jobs[0][0]))
            if chosen.job_id in stop_at:
                return starts
            starts[chosen.job_id] = now
            leased_per_type[chosen.type] = leased_per_type.get(chosen.type, 0) + 1
            busy_workers += 1
            if chosen.type in usual_seconds:
                heapq.heappush(endings, (now + usual_seconds[chosen.type], chosen.type, True))
        next_time = min(arrivals[0][0] if arrivals else math.inf, endings[0][0] if endings else math.inf)
        if next_time == math.inf:
            return starts
        now = next_time


def _has_free_slot(limit: int | None, leased: int) -> bool:
    return limit is None or leased < limit
