"""The fleet of a fault test: it uses the timers of this run, and checks at the end that all jobs ended correctly."""

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
from tests.integration.worker.fleet import Fleet


class FaultFleet(Fleet):
    """The health process runs in `with FaultFleet(…) as fleet`; the test starts workers, the fixture calls `finish`.

    Code in the test uses `settings`, which contain the timers. The checker also checks `limits`, if the test sets them.
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
        """False if the test checks the history itself (a seeded bug)."""
        self.streams = False
        """True if the streams in Redis are checked, too; only for tests that do not disturb Redis."""

    def concurrency(self, limit: int) -> None:
        """Set the limit of concurrent trainings in all processes that are started from now on."""
        self.environment["TIDAL_LM_TRAINING_CONCURRENCY"] = str(limit)
        self.limits["lm-training"] = limit

    def finish(self, seconds: float | None = None) -> None:
        """Continue stopped processes, start missing ones, cancel paused jobs, and wait until all jobs have ended."""
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
        """Return whether the process with this name runs."""
        process = self.processes.get(name)
        return process is not None and process.poll() is None

    def history(self, *, accepted: Collection[str] = (), limits: Mapping[str, int] | None = None) -> History:
        """Return the history of this database; jobs that the fleet submitted count as accepted."""
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
        """Return the violations that the checker finds."""
        return check(self.history())
