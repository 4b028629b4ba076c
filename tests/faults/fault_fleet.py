"""The fleet of a fault test: timers of this run, and an end at which every job must have ended and be judged."""

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
    """`with FaultFleet(…) as fleet`: health runs, the test starts workers; the fixture calls `finish`.

    `settings` (with the timers) is what code inside the test uses; `limits` are checked if the test keeps them.
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
        """False: the test judges by itself (a seeded bug)."""
        self.streams = False
        """True: the streams of Redis are judged too. Only where the test leaves Redis in peace."""

    def concurrency(self, limit: int) -> None:
        """Let `limit` trainings run at once, in every process started from now on."""
        self.environment["TIDAL_LM_TRAINING_CONCURRENCY"] = str(limit)
        self.limits["lm-training"] = limit

    def finish(self, seconds: float | None = None) -> None:
        """Wake who was stopped, start who is missing, and wait until every job has ended. Paused ones are cancelled."""
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
        """Whether the process of that name is there."""
        process = self.processes.get(name)
        return process is not None and process.poll() is None

    def history(self, *, accepted: Collection[str] = (), limits: Mapping[str, int] | None = None) -> History:
        """Everything of this database; jobs submitted through the fleet count as accepted."""
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
        """What the checker says."""
        return check(self.history())
