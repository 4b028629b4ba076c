"""A publisher that records all messages, and can simulate an outage of Redis."""

from __future__ import annotations

from typing import Any

from common.errors import UnavailableError


class RecordingPublisher:
    """A `Publisher` that needs no Redis."""

    def __init__(self) -> None:
        self.notified: list[str] = []
        self.updates: list[tuple[int, dict[str, Any], bool]] = []
        self.changed_jobs: list[str] = []
        self.outage: UnavailableError | None = None
        self.fail_after: int | None = None
        """Number of calls that succeed; all later calls fail. None means that no call fails."""

    def notify_worker(self, queue: str) -> None:
        self._check()
        self.notified.append(queue)

    def update(self, outbox_id: int, document: dict[str, Any], *, final: bool) -> None:
        self._check()
        self.updates.append((outbox_id, document, final))

    def notify_owner(self, job_id: str) -> None:
        self._check()
        self.changed_jobs.append(job_id)

    def undelivered(self, queue: str) -> int:
        if self.outage is not None:
            raise self.outage
        return self.notified.count(queue)

    def forget(self) -> None:
        """Forget all messages, as Redis does after FLUSHALL."""
        self.notified.clear()
        self.updates.clear()
        self.changed_jobs.clear()

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise UnavailableError("Redis does not answer any more")
            self.fail_after -= 1
