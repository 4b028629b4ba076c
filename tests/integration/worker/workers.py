"""Starts real worker and health processes for one test, with shortened timers and the fake trainer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from common.db import Checkpoint, Job, JobEvent
from common.jobs.queue import NewJob, enqueue_job
from common.jobs.signals import request_cancel, request_signal
from tests.paths import ROOT
from tidal_client.vocabulary import JobType, Signal

TIMERS = {
    "TIDAL_LEASE_SECONDS": "3",
    "TIDAL_LEASE_RENEW_SECONDS": "0.5",
    "TIDAL_TRAINER_PAUSE_SECONDS": "2",
    "TIDAL_HEARTBEAT_SECONDS": "0.5",
    "TIDAL_REAPER_SECONDS": "0.3",
    "TIDAL_QUARANTINE_SECONDS": "0.5",
    "TIDAL_REAPER_CONTACT_SECONDS": "0.5",
    "TIDAL_OUTBOX_SECONDS": "1",
    "TIDAL_DESIRED_STATE_POLL_SECONDS": "0.3",
    "TIDAL_STOP_GRACE_SECONDS": "2",
    "TIDAL_KILL_GRACE_SECONDS": "1",
    "TIDAL_DRAIN_SECONDS": "5",
}
LONG = {"steps": 1_000_000}
"""The plan of a job that runs until it is stopped."""


@dataclass(frozen=True)
class Step:
    """A step that a fake trainer has executed."""

    attempt: int
    step: int
    time: float


class Workers:
    """The worker and health processes of a test. Each has a name. They are ended at the end of the `with` block."""

    def __init__(
        self,
        settings: Settings,
        sessions: sessionmaker[Session],
        folder: Path,
        timers: Mapping[str, str] = TIMERS,
        **environment: str,
    ) -> None:
        """`timers` and `environment` are environment variables for all processes."""
        self.settings, self.sessions, self.folder = settings, sessions, folder
        self.submitted: list[str] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **os.environ,
            **timers,
            "PYTHONPATH": str(ROOT),
            "TIDAL_DATABASE_URL": settings.database_url.get_secret_value(),
            "TIDAL_REDIS_URL": settings.redis_url.get_secret_value(),
            "TIDAL_EXPERIMENTS_DIR": str(settings.experiments_dir),
            "TIDAL_DATA_DIR": str(settings.data_dir),
            "TIDAL_TRAINER_COMMAND": f"{sys.executable} -m tests.integration.worker.fake_trainer",
            **environment,
        }

    def __enter__(self) -> Self:
        self.start("health", "services.health")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        stuck = []
        for name, process in self.processes.items():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                stuck.append(name)
        if kind is not None:
            for name in self.processes:
                sys.stderr.write(f"--- {name}\n{self.log(name).read_text()[-6000:]}\n")
        assert not stuck or kind is not None, f"{stuck} did not stop within 20 s of SIGTERM"

    def start(self, name: str, module: str, **environment: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.processes[name]

    def worker(self, name: str = "worker", plan: dict[str, Any] | None = None, **environment: str) -> None:
        """Start a worker for the queue `training` whose trainers follow `plan`."""
        self.start(name, "services.worker", TIDAL_FAKE_TRAINER=json.dumps(plan or {}), **environment)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def submit(self, plan: dict[str, Any] | None = None, **fields: Any) -> str:
        """Submit a job and return its id; its trainers follow `plan` on every worker."""
        new = NewJob(**({"type": JobType.LM_TRAINING, "payload": {"config": {}}} | fields))
        with self.sessions.begin() as session:
            job = enqueue_job(session, new)
            if plan is not None:
                folder = self.settings.experiments_dir / job.experiment_id
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "plan.json").write_text(json.dumps(plan))
        self.submitted.append(job.id)
        return job.id

    def signal(self, job_id: str, name: str) -> None:
        with self.sessions.begin() as session:
            request_signal(session, job_id, Signal(name))

    def cancel(self, job_id: str) -> None:
        with self.sessions.begin() as session:
            request_cancel(session, job_id)

    def job(self, job_id: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def events(self, job_id: str) -> list[JobEvent]:
        with self.sessions() as session:
            return list(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)))

    def statuses(self, job_id: str) -> list[str]:
        return [event.to_status for event in self.events(job_id) if event.to_status]

    def event_names(self, job_id: str) -> list[str]:
        return [event.event for event in self.events(job_id)]

    def artifacts(self, job_id: str) -> list[Checkpoint]:
        with self.sessions() as session:
            return list(session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.id)))

    def experiment(self, job_id: str) -> Path:
        return self.settings.experiments_dir / self.job(job_id).experiment_id

    def steps(self, job_id: str) -> list[Step]:
        path = self.experiment(job_id) / "steps.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return [Step(line["attempt"], line["step"], line["time"]) for line in lines]

    def wait_status(self, job_id: str, wanted: str | Iterable[str], seconds: float = 75) -> Job:
        names = {wanted} if isinstance(wanted, str) else set(wanted)
        self.wait_for(lambda: self.job(job_id).status in names, f"{names}", seconds, job_id)
        return self.job(job_id)

    def wait_steps(self, job_id: str, count: int, *, attempt: int = 1, seconds: float = 75) -> None:
        """Wait until `attempt` has executed `count` steps."""

        def check() -> bool:
            return sum(step.attempt == attempt for step in self.steps(job_id)) >= count

        self.wait_for(check, f"{count} steps of attempt {attempt}", seconds, job_id)

    def wait_for(self, check: Callable[[], bool], what: str, seconds: float = 75, job_id: str | None = None) -> None:
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline:
                where = "" if job_id is None else f"; statuses {self.statuses(job_id)}, {self.event_names(job_id)}"
                raise AssertionError(f"{what} not seen within {seconds} s{where}")
            time.sleep(0.03)

    def trainers(
        self, name: str = "worker", module: str = "tests.integration.worker.fake_trainer"
    ) -> list[psutil.Process]:
        """Return the trainer processes of a worker."""
        try:
            return [
                child
                for child in psutil.Process(self.processes[name].pid).children(recursive=True)
                if module in child.cmdline()
            ]
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str) -> None:
        """Send SIGKILL only to the process, not to its children."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def wait_all_terminal(self, seconds: float = 60) -> None:
        """Wait until all jobs in the database have ended."""
        query = select(Job.id, Job.status).where(Job.finished_at.is_(None))

        def open_jobs() -> list[tuple[str, str]]:
            with self.sessions() as session:
                return [(job_id, status) for job_id, status in session.execute(query)]

        deadline = time.monotonic() + seconds
        while left := open_jobs():
            if time.monotonic() > deadline:
                details = "; ".join(f"{job_id} {status}: {self.event_names(job_id)[-8:]}" for job_id, status in left)
                raise AssertionError(f"not ended within {seconds:.0f} s: {details}")
            time.sleep(0.05)
