"""The queue: its lines by job type, and the workers."""

from __future__ import annotations

from .base import KnownType, Reply, UtcTime


class QueuedJob(Reply):
    """A job that waits."""

    id: str
    name: str | None = None
    priority: int
    position: int
    """1 = next of its type."""
    predicted_start: UtcTime | None
    """When it will probably be claimed; null: cannot be said (always so beyond the first 100 of a type)."""
    not_before: UtcTime | None
    created_at: UtcTime


class QueueType(Reply):
    """The line of one job type."""

    type: KnownType
    limit: int | None
    """Most jobs of the type that hold a slot at once; null: as many as there are workers."""
    running: int
    """Jobs that hold a slot and whose worker is heard of."""
    stale: int
    """Jobs whose lease lapsed; they count against the limit until they are judged."""
    pending: int
    """All that wait, also those that `jobs` does not show."""
    usual_seconds: float | None
    """Median from first claim to completion of the last 20 jobs; null before the first."""
    jobs: list[QueuedJob]
    """In the order in which they will be claimed."""


class QueueWorker(Reply):
    """A worker that has beaten lately. It runs one job at a time."""

    worker: str
    host: str
    device: str
    state: str
    """idle, busy or leaving."""
    job: str | None


class QueueReply(Reply):
    """One queue: its workers and its lines."""

    queue: str
    workers: list[QueueWorker] | None
    """Null while Redis does not answer."""
    types: list[QueueType]


class QueueList(Reply):
    """All queues of jobs."""

    queues: list[QueueReply]
