"""If the database is unavailable at the end of a job, the writes are delayed but not lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from common.db import Job, Outbox
from common.errors import UnavailableError
from services.worker.row_writer import RowWriter
from services.worker.worker import Worker
from tests.faults.proxy import TcpProxy
from tests.integration.worker.workers import Workers


def lapsed(sessions: sessionmaker[Session], job_id: str) -> bool:
    with sessions() as session:
        return bool(session.scalar(select(Job.lease_expires_at < func.clock_timestamp()).where(Job.id == job_id)))


def test_the_ending_is_written_when_the_database_returns_after_the_lease(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    url = settings.database_url.get_secret_value()
    # With these timers, the trainer is not suspended during the outage, so it ends by itself; and after the outage the
    # reaper waits long enough for the owner to write first.
    timers = {"TIDAL_TRAINER_PAUSE_SECONDS": "60", "TIDAL_REAPER_CONTACT_SECONDS": "10"}
    with (
        TcpProxy.of_url(url) as proxy,
        Workers(settings, sessions, tmp_path, TIDAL_DATABASE_URL=proxy.url, **timers) as workers,
    ):
        job_id = workers.submit()
        workers.worker(plan={"steps": 25, "step_seconds": 0.1})
        workers.wait_steps(job_id, 12)
        workers.wait_status(job_id, "running")
        proxy.cut()
        workers.wait_for(lambda: workers.trainers() == [], "the end of the trainer", 60)
        workers.wait_for(lambda: lapsed(sessions, job_id), "the end of the lease", 60)
        assert workers.job(job_id).status == "running"
        proxy.heal()
        job = workers.wait_status(job_id, "completed", 60)
        assert (job.attempt, job.infra_restarts) == (1, 0)
        assert [step.step for step in workers.steps(job_id)] == list(range(1, 26))
        assert [item.name for item in workers.artifacts(job_id)][-1] == "model.pth"
        events = workers.event_names(job_id)
        # Writes that were submitted during the outage are executed in the order of submission.
        assert [name for name in events if name in ("running", "completing", "artifact", "completed")] == [
            "running",
            "completing",
            "artifact",
            "completed",
        ]


def test_a_writer_that_gives_up_waits_once_and_not_once_per_write() -> None:
    tries: list[float] = []

    class Silent:
        def begin(self) -> Session:
            tries.append(time.monotonic())
            raise OperationalError("connection timed out", None, Exception())

    writer = RowWriter(cast("sessionmaker[Session]", Silent()))
    writes = [writer.submit(lambda session: None) for _ in range(50)]
    writer.close(abandon=True)
    assert len(tries) <= 2
    assert isinstance(writes[-1].exception(), UnavailableError)


def test_a_notification_received_during_a_shutdown_is_sent_again(
    settings: Settings, sessions: sessionmaker[Session]
) -> None:
    worker = Worker(settings, queue="training")
    worker.drain()
    assert worker.run_next("training") == "the worker is shutting down"
    worker.close()
    with sessions() as session:
        queues = session.scalars(select(Outbox.queue).where(Outbox.kind == "doorbell")).all()
    assert queues == ["training"]
