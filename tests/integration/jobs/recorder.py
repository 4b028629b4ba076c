"""A publisher that remembers what it was given, and can be away."""

from __future__ import annotations

from typing import Any

from common.errors import UnavailableError


class RecordingPublisher:
    """The `Publisher` of tests that are not about Redis."""

    def __init__(self) -> None:
        self.bells: list[str] = []
        self.updates: list[tuple[int, dict[str, Any], bool]] = []
        self.wishes: list[str] = []
        self.trouble: UnavailableError | None = None
        self.fail_after: int | None = None
        """Calls that succeed before `trouble` begins by itself."""

    def notify_worker(self, queue: str) -> None:
        self._check()
        self.bells.append(queue)

    def update(self, outbox_id: int, document: dict[str, Any], *, final: bool) -> None:
        self._check()
        self.updates.append((outbox_id, document, final))

    def notify_owner(self, job_id: str) -> None:
        self._check()
        self.wishes.append(job_id)

    def undelivered(self, queue: str) -> int:
        if self.trouble is not None:
            raise self.trouble
        return self.bells.count(queue)

    def forget(self) -> None:
        """Lose everything, as FLUSHALL does."""
        self.bells.clear()
        self.updates.clear()
        self.wishes.clear()

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise UnavailableError("Redis went away")
            self.fail_after -= 1
