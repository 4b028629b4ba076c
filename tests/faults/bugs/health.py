"""A health process with a bug: `python -m tests.faults.bugs.health`. Its reaper does not wait for the end of a lease.

The reaper requeues a first attempt when a few renewals are missing, long before the lease ends and the trainer suspends
itself. Only tests start this process.
"""

from __future__ import annotations

import sys

from sqlalchemy import select, true, update
from sqlalchemy.orm import Session

import common.jobs.maintenance
from common.config import Settings
from common.db import Job
from common.jobs import outbox
from common.jobs.changes import write_event
from common.jobs.reaper import Reaped
from common.jobs.sql import now_plus
from services.health.__main__ import main
from tidal_client.vocabulary import JobStatus

LATE = 0.6
"""Age of the last renewal at which the job is requeued, as a fraction of the age at which a trainer suspends itself."""


def reap(session: Session, settings: Settings) -> Reaped:
    """Requeue running first attempts whose last renewal is older than the age that `LATE` defines.

    The real reaper would first mark such a job as stale, and then wait.
    """
    late = now_plus(settings.lease_seconds - LATE * settings.trainer_pause_seconds)
    running = select(Job).where(Job.status == JobStatus.RUNNING, Job.attempt == 1, Job.lease_expires_at < late)
    jobs = session.scalars(running.with_for_update(skip_locked=True)).all()
    for job in jobs:
        fields = {"status": JobStatus.PENDING, "lease_owner": None, "lease_expires_at": None}
        session.execute(update(Job).where(Job.id == job.id).values(**fields))
        session.refresh(job)
        write_event(
            session,
            job,
            "restarted",
            actor="reaper",
            source=JobStatus.RUNNING,
            target=JobStatus.PENDING,
            details={"reason": "worker_lost"},
        )
        outbox.add_job_update(session, job, "restarted")
        outbox.add_notifications(session, job.queue)
    return Reaped(requeued=len(jobs))


if __name__ == "__main__":
    vars(common.jobs.maintenance).update(reap=reap, _anything_to_do=true)
    sys.exit(main())
