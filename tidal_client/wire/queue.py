"""Queues: the waiting jobs by type, and the workers."""

from __future__ import annotations

from .base import KnownType, Reply, UtcTime


class QueuedJob(Reply):
    """A waiting job."""

    id: str
    name: str | None = None
    priority: int
    position: int
    """Position among the waiting jobs of its type; 1 is claimed next."""
    predicted_start: UtcTime | None
    """Estimated time at which a worker will claim the job; null if there is no estimate. Only the first 100 jobs
    of a type can have one."""
    not_before: UtcTime | None
    created_at: UtcTime


class QueueType(Reply):
    """The jobs of one type in a queue."""

    type: KnownType
    limit: int | None
    """Maximum number of leased jobs of the type; null if only the number of workers limits it."""
    running: int
    """Number of jobs of the type whose lease a worker renews."""
    stale: int
    """Number of jobs of the type whose lease has expired. They count against `limit` until the reaper requeues or ends
    them."""
    pending: int
    """Number of waiting jobs of the type, including those that `jobs` does not list."""
    usual_seconds: float | None
    """Median duration in seconds of the last 20 completed jobs, from first claim to completion; null if there are none.
    """
    jobs: list[QueuedJob]
    """The first waiting jobs, in the order in which they will be claimed."""


class QueueWorker(Reply):
    """A worker with a recent heartbeat. It runs one job at a time."""

    worker: str
    host: str
    device: str
    state: str
    """One of idle, busy, and leaving (the worker is shutting down)."""
    job: str | None


class QueueReply(Reply):
    """A queue with its workers and its jobs by type."""

    queue: str
    workers: list[QueueWorker] | None
    """The workers with a recent heartbeat; null if Redis does not reply."""
    types: list[QueueType]


class QueueList(Reply):
    """All job queues."""

    queues: list[QueueReply]
