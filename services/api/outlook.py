"""What a request needs to say where a job waits and when it will probably start: the limits, and the workers alive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from common.config import Settings
from common.jobs.waiting_line import Place, places_of
from services.api.workers import WorkerBoard


@dataclass(frozen=True)
class Outlook:
    """One per app."""

    settings: Settings
    workers: WorkerBoard

    def places(self, session: Session, job_ids: Iterable[str]) -> dict[str, Place]:
        """Where these jobs wait; those that do not are missing."""
        return places_of(session, self.settings, self.workers.slots, job_ids)
