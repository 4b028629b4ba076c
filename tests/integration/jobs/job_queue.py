"""Helpers for tests of jobs: submit a job, bring it to a status by valid transitions, and read its events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from common.db import Job, JobEvent
from common.jobs.queue import NewJob, claim_job, complete_job, enqueue_job, fail_job, register_checkpoint, transition
from common.jobs.reaper import mark_stale
from common.jobs.retry import Fault
from common.jobs.signals import request_signal
from common.jobs.submission import submitted_before
from tidal_client.vocabulary import JobStatus, JobType, Signal

S = JobStatus


def submit_once(session: Session, new: NewJob, settings: Settings | None = None) -> Job:
    """Submit `new` as the api does: if an earlier job has its idempotency key, return that job instead."""
    key = new.idempotency_key
    known = submitted_before(session, key, new.digest()) if key is not None else None
    return known or enqueue_job(session, new, settings)


@dataclass
class JobQueue:
    """Shortcuts for tests that work on the jobs of one database."""

    sessions: sessionmaker[Session]
    settings: Settings

    def submit(self, job_type: str = "lm-training", **fields: Any) -> str:
        """Submit a job with the smallest payload of its type, and return its id."""
        payload: dict[str, Any] = {"config": {}}
        if job_type == "rl-training":
            payload |= {"checkpoint": "exp/final", "data": {}}
        if job_type == "evaluation":
            payload = {"checkpoint": "exp/final", "data": {}, "evaluation": {}}
        if job_type == "analysis":
            payload = {"checkpoint": "exp/final", "analysis": {"prompts": ["Once"], "gating_mode": "random"}}
        with self.sessions.begin() as session:
            return submit_once(session, NewJob(type=JobType(job_type), payload=payload, **fields)).id

    def claim(self, owner: str = "worker-1") -> Job | None:
        with self.sessions.begin() as session:
            return claim_job(session, "training", owner, self.settings)

    def job(self, job_id: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def status(self, job_id: str) -> str:
        return self.job(job_id).status

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call `function(session, …)` in a transaction of its own."""
        with self.sessions.begin() as session:
            return function(session, *arguments, **named)

    def bring(self, status: JobStatus, job_type: str = "lm-training", *, checkpoint: bool = False) -> str:
        """Submit a job, bring it to `status` and return its id. For a status that needs a claim, the attempt is 1."""
        job_id = self.submit(job_type)
        if status is S.PENDING:
            return job_id
        claimed = self.claim()
        assert claimed is not None and claimed.id == job_id
        if checkpoint or status is S.PAUSED:
            self.do(register_checkpoint, job_id, 1, name="step-5", step=5, sha256="00")
        if status in (S.STOPPING, S.CANCELLED):
            self.do(request_signal, job_id, Signal.STOP)
            self.do(transition, job_id, 1, S.STOPPING)
        way = {
            S.STARTING: [S.STARTING],
            S.RUNNING: [S.STARTING, S.RUNNING],
            S.COMPLETING: [S.STARTING, S.RUNNING, S.COMPLETING],
            S.PAUSED: [S.STARTING, S.RUNNING],
            S.CANCELLED: [S.CANCELLED],
        }.get(status, [])
        for step in way:
            self.do(transition, job_id, 1, step)
        if status is S.PAUSED:
            self.do(request_signal, job_id, Signal.PAUSE)
            self.do(transition, job_id, 1, S.PAUSED)
        if status is S.COMPLETED:
            self.do(complete_job, job_id, 1)
        if status is S.FAILED:
            self.do(fail_job, job_id, 1, Fault.USER_ERROR, "it broke", settings=self.settings)
        if status is S.STALE:
            self.lapse(job_id)
            self.do(mark_stale)
        return job_id

    def lapse(self, job_id: str, seconds: float = 1.0) -> None:
        """Set the end of the lease to `seconds` ago, by the clock of the database."""
        statement = text("UPDATE jobs SET lease_expires_at = now() - make_interval(secs => :s) WHERE id = :id")
        with self.sessions.begin() as session:
            session.execute(statement, {"s": seconds, "id": job_id})

    def history(self, job_id: str) -> list[tuple[str, str | None, str | None]]:
        """Return (event, from status, to status) of all events of the job, oldest first."""
        query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
        with self.sessions() as session:
            return [(row.event, row.from_status, row.to_status) for row in session.scalars(query)]

    def sql(self, statement: str, **values: Any) -> Any:
        with self.sessions.begin() as session:
            result = session.execute(text(statement), values)
            return result.scalar() if result.returns_rows else None

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a query and return all rows."""
        with self.sessions() as session:
            return [tuple(row) for row in session.execute(text(statement))]
