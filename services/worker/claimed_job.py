"""A claimed job as plain values, detached from the session that claimed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common.child.protocol import ChildJob
from common.db import Job
from common.redis import keys


@dataclass(frozen=True)
class ClaimedJob:
    """What the supervisor needs of the row. `claimed_at`: `lease_clock()` before the claim was sent."""

    id: str
    attempt: int
    type: str
    experiment_id: str
    payload: dict[str, Any]
    claimed_at: float

    @classmethod
    def of(cls, job: Job, *, claimed_at: float) -> ClaimedJob:
        """Copy the row."""
        return cls(job.id, job.attempt, job.type, job.experiment_id, dict(job.payload), claimed_at)

    @property
    def streams(self) -> tuple[str, str]:
        """Where its logs and status go."""
        return keys.job_stream(self.id), keys.experiment_stream(self.experiment_id)

    def for_child(self) -> ChildJob:
        """As the trainer gets it."""
        return ChildJob(
            job_id=self.id,
            attempt=self.attempt,
            job_type=self.type,
            experiment_id=self.experiment_id,
            payload=self.payload,
        )
