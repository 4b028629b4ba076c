"""Prints the queue as two tables: one of the job types, and one of the waiting jobs."""

from __future__ import annotations

from datetime import UTC, datetime

from common.words import plural
from services.cli.output import age, duration, err, out, table
from tidal_client import Queue

SOON_SECONDS = 5.0


def time_until(moment: datetime | None, *, now: datetime | None = None) -> str:
    """Return the time until `moment` as text, such as `now` or `in 3:05`; `unknown` for None."""
    if moment is None:
        return "unknown"
    seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return "now" if seconds < SOON_SECONDS else f"in {duration(seconds)}"


def print_queue(queue: Queue) -> None:
    """Print the concurrency limits, the numbers of jobs and the waiting jobs of `queue`."""
    workers = queue.workers
    if workers is None:
        alive = "workers unknown (Redis does not respond)"
    else:
        busy = sum(worker.state == "busy" for worker in workers)
        alive = f"{plural(len(workers), 'worker')} alive, {busy} busy"
    lines = table("type", "limit>", "running>", "stale>", "waiting>", "usually takes>", title=f"{queue.queue}: {alive}")
    for kind in queue.types:
        limit = "none" if kind.limit is None else str(kind.limit)
        counts = (str(kind.running), str(kind.stale), str(kind.pending))
        lines.add_row(kind.type, limit, *counts, duration(kind.usual_seconds))
    out.print(lines)
    waiting = table("job", "type", "position>", "priority>", "starts about", "name", "submitted")
    for kind in queue.types:
        for job in kind.jobs:
            place, priority = str(job.position), str(job.priority)
            waiting.add_row(
                job.id, kind.type, place, priority, time_until(job.predicted_start), job.name or "", age(job.created_at)
            )
    if waiting.row_count:
        out.print(waiting)
    else:
        err.print("No job is waiting.")
