"""Queues: the waiting jobs by type, and the workers."""

from __future__ import annotations

from .base import KnownType, Reply, UtcTime


class QueuedJob(Reply):
    """A waiting job."""

    id: str
    name: str | None = None
    priority: int
    position: int
    """Position among the waiting jobs of its type, 1 = claimed next."""
    predicted_start: UtcTime | None
    """When a worker will probably claim the job; null without an estimate, as after the first 100 jobs of a type."""
    not_before: UtcTime | None
    created_at: UtcTime


class QueueType(Reply):
    """The jobs of one type in a queue."""

    type: KnownType
    limit: int | None
    """Largest number of jobs of the type that hold a slot at once; null if only the number of workers limits it."""
    running: int
    """Number of jobs that hold a slot and whose worker renews the lease."""
    stale: int
    """Number of jobs whose lease has expired; they count against the limit until the reaper requeues or ends them."""
    pending: int
    """Number of waiting jobs, including those that `jobs` does not list."""
    usual_seconds: float | None
    """Median time in seconds from first claim to completion of the last 20 completed jobs; null if there are none."""
    jobs: list[QueuedJob]
    """The first waiting jobs, in the order in which they will be claimed."""


class QueueWorker(Reply):
    """A worker with a recent heartbeat. It runs one job at a time."""

    worker: str
    host: str
    device: str
    state: str
    """One of idle, busy, leaving."""
    job: str | None


class QueueReply(Reply):
    """A queue with its workers and its jobs by type."""

    queue: str
    workers: list[QueueWorker] | None
    """The workers with a recent heartbeat; null while Redis does not answer."""
    types: list[QueueType]


class QueueList(Reply):
    """All job queues."""

    queues: list[QueueReply]
