"""Runs the processes of a fault test with given timers. At the end, all jobs must have ended correctly."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection, Mapping
from pathlib import Path

import redis
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from common.db import Job
from common.errors import ConflictError
from tests.faults.checker import check
from tests.faults.history import History, read_history
from tests.faults.timers import Timers
from tests.integration.worker.workers import Workers


class FaultWorkers(Workers):
    """Runs the processes of a fault test.

    `with FaultWorkers(…) as workers` starts the health process; the test starts workers, and the fixture `workers`
    calls `finish` after the test. Code in the test process should use `settings`, which contain the shortened timers.
    `limits` is {job type: number of jobs that may run at the same time}; the checker checks these limits too.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: sessionmaker[Session],
        folder: Path,
        timers: Timers,
        **environment: str,
    ) -> None:
        super().__init__(timers.applied(settings), sessions, folder, timers.environment(), **environment)
        self.timers = timers
        self.limits: dict[str, int] = {"lm-training": 1}
        self.checked = True
        """Whether the fixture calls `finish` after the test, and requires that `violations` returns none.

        Tests with a seeded bug set this to False and call `violations` themselves.
        """
        self.streams = False
        """Whether the streams in Redis are checked as well. Only tests that do not disturb Redis set this to True."""

    def concurrency(self, limit: int) -> None:
        """Limit the number of trainings that may run at the same time.

        This applies to processes that are started later.
        """
        self.environment["TIDAL_LM_TRAINING_CONCURRENCY"] = str(limit)
        self.limits["lm-training"] = limit

    def finish(self, seconds: float | None = None) -> None:
        """Wait until all jobs have ended.

        Before that, continue suspended processes, start missing processes, and cancel paused jobs.
        """
        seconds = self.timers.patience if seconds is None else seconds
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
        if not self.runs("health"):
            self.start("health", "services.health")
        with self.sessions() as session:
            query = select(Job.id, Job.status).where(Job.finished_at.is_(None))
            left = dict(session.execute(query).all())
        if left and not any(self.runs(name) for name in self.processes if not name.startswith(("health", "api"))):
            self.worker("finisher")
        for job_id, status in left.items():
            if status == "paused":
                with contextlib.suppress(ConflictError):
                    self.cancel(job_id)
        self.wait_all_terminal(seconds)

    def runs(self, name: str) -> bool:
        """Return whether the process with this name is running."""
        process = self.processes.get(name)
        return process is not None and process.poll() is None

    def history(self, *, accepted: Collection[str] = (), limits: Mapping[str, int] | None = None) -> History:
        """Return the history of all jobs in this database.

        `History.accepted` contains the jobs that this object has submitted, and those in `accepted`.
        """
        url = self.settings.redis_url.get_secret_value()
        with redis.Redis.from_url(url, decode_responses=True, socket_timeout=10) as client:
            return read_history(
                self.sessions,
                self.settings.experiments_dir,
                accepted=[*self.submitted, *accepted],
                limits=self.limits if limits is None else limits,
                stream_of=client if self.streams else None,
            )

    def violations(self) -> list[str]:
        """Return the violations that the checker finds in the history of all jobs."""
        return check(self.history())
