"""A claimed job as plain values, independent of the database session that claimed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common.child.protocol import ChildJob
from common.db import Job
from common.redis import keys


@dataclass(frozen=True)
class ClaimedJob:
    """The columns of a claimed job that its supervisor needs."""

    id: str
    attempt: int
    type: str
    experiment_id: str
    payload: dict[str, Any]
    claimed_at: float
    """Value of `lease_clock()` just before the claim was sent to the database."""

    @classmethod
    def of(cls, job: Job, *, claimed_at: float) -> ClaimedJob:
        """Return a copy of the columns of `job`."""
        return cls(job.id, job.attempt, job.type, job.experiment_id, dict(job.payload), claimed_at)

    @property
    def streams(self) -> tuple[str, str]:
        """The two Redis streams, of the job and of the experiment, that receive the job's log lines and status."""
        return keys.job_stream(self.id), keys.experiment_stream(self.experiment_id)

    def for_child(self) -> ChildJob:
        """Return the job in the form that the trainer receives."""
        return ChildJob(
            job_id=self.id,
            attempt=self.attempt,
            job_type=self.type,
            experiment_id=self.experiment_id,
            payload=self.payload,
        )
