"""Fault 16 of 31: PostgreSQL's backend is terminated at each transition of a job, just before or just after its COMMIT.

`test_…_of_a_life` tests real processes. `test_…_by_an_owner` tests every write of a job's owner, in this process.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from common.db import Job, JobEvent, make_engine, session_factory
from common.jobs import queue
from common.jobs.queue import NewJob
from common.jobs.retry import Fault
from common.jobs.signals import request_cancel, request_signal
from services.worker.row_writer import RowWriter
from tests.faults.checker import check
from tests.faults.commit_proxy import CommitProxy, When
from tests.faults.fault_workers import FaultWorkers
from tests.faults.history import read_history
from tests.integration.worker.workers import LONG
from tidal_client.vocabulary import JobStatus, JobType, Signal

Moves = tuple[tuple[str, str], ...]
_MOVE = re.compile(rb"(?:api|worker|reaper)\0\0\0[\x06-\x0c]([a-z]+)\0\0\0[\x06-\x0c]([a-z]+)")
"""Matches the adjacent parameters actor, old status and new status of the INSERT into job_events.

An event without an old status is not a transition.
"""


def moves_in(transaction: bytes) -> Moves:
    """Return the transitions that a transaction writes."""
    return tuple((found[1].decode(), found[2].decode()) for found in _MOVE.finditer(transaction))


class Terminator:
    """Terminates the backend twice for each transition: before its first COMMIT, and after that of the next try."""

    def __init__(self) -> None:
        self.tries: dict[Moves, int] = {}
        self._lock = threading.Lock()

    def __call__(self, transaction: bytes) -> When | None:
        moves = moves_in(transaction)
        if not moves:
            return None
        with self._lock:
            self.tries[moves] = self.tries.get(moves, 0) + 1
            tries = self.tries[moves]
        return "before" if tries == 1 else "done" if tries == 2 else None

    @property
    def survived(self) -> set[tuple[str, str]]:
        """The transitions at which both kinds of termination have happened."""
        return {move for moves, tries in self.tries.items() if tries >= 2 for move in moves}


def test_fault_16_the_backend_terminated_at_each_transition_of_a_life(workers: FaultWorkers) -> None:
    terminator = Terminator()
    patience = 3 * workers.timers.patience
    with CommitProxy(workers.settings.database_url.get_secret_value(), terminator) as proxy:
        workers.kill("health")
        workers.start("health", "services.health", TIDAL_DATABASE_URL=proxy.url)
        workers.worker(TIDAL_DATABASE_URL=proxy.url)
        whole = workers.submit(plan={"steps": 20})
        workers.wait_status(whole, "completed", seconds=patience)
        ended = workers.submit(plan={**LONG, "step_seconds": 0.05})
        workers.wait_status(ended, "running", seconds=patience)
        workers.signal(ended, "pause")
        workers.wait_status(ended, "paused", seconds=patience)
        workers.signal(ended, "resume")
        workers.wait_status(ended, "running", seconds=patience)
        workers.signal(ended, "stop")
        workers.wait_status(ended, "cancelled", seconds=patience)
        # The processes must shut down before the proxy is closed.
        for name in ("worker", "health"):
            workers.processes[name].terminate()
            assert workers.processes[name].wait(20) == 0
    assert {"before", "done"} == set(proxy.met)
    assert terminator.survived >= {
        ("pending", "provisioning"),
        ("provisioning", "starting"),
        ("starting", "running"),
        ("running", "completing"),
        ("completing", "completed"),
        ("running", "paused"),
        ("running", "stopping"),
        ("stopping", "cancelled"),
    }
    assert {step.step for step in workers.steps(whole)} == set(range(1, 21))


Write = Callable[[Session, str], object]
MODEL = {"name": "model.pth", "kind": "model", "sha256": "0" * 64, "size_bytes": 1}
CHECKPOINT = {"name": "step-000000002", "step": 2, "sha256": "2" * 64, "size_bytes": 1}
WRITES: dict[str, tuple[str | None, Write, str]] = {
    # {name: (signal, write, status afterwards)}. The write is done by attempt 1 of a running job that has a checkpoint.
    "transition": (None, lambda s, j: queue.transition(s, j, 1, JobStatus.COMPLETING), "completing"),
    "complete": (None, lambda s, j: queue.complete_job(s, j, 1), "completed"),
    "pause": ("pause", lambda s, j: queue.pause_job(s, j, 1), "paused"),
    "release": (None, lambda s, j: queue.release_job(s, j, 1), "pending"),
    "release after stop": ("stop", lambda s, j: queue.release_job(s, j, 1), "cancelled"),
    "fail": (None, lambda s, j: queue.fail_job(s, j, 1, Fault.USER_ERROR, "no"), "failed"),
    "fail and retry": (None, lambda s, j: queue.fail_job(s, j, 1, Fault.WORKER_LOST, "lost"), "pending"),
    "checkpoint": (None, lambda s, j: queue.register_checkpoint(s, j, 1, **CHECKPOINT), "running"),
    "artifact": (None, lambda s, j: queue.register_artifact(s, j, 1, **MODEL), "running"),
    "event": (None, lambda s, j: queue.record_event(s, j, 1, "noted"), "running"),
    "progress": (None, lambda s, j: queue.record_progress(s, j, 1, step=7), "running"),
}


@pytest.mark.parametrize("when", ["before", "done"])
def test_fault_16_the_backend_terminated_at_every_write_by_an_owner(
    settings: Settings, sessions: sessionmaker[Session], when: When
) -> None:
    pending: list[When] = []
    with CommitProxy(settings.database_url.get_secret_value(), lambda _: pending.pop() if pending else None) as proxy:
        engine = make_engine(proxy.url)
        writer = RowWriter(session_factory(engine))
        accepted = []
        for name, (requested, write, expected) in WRITES.items():
            job_id = running_job(settings, sessions, requested)
            accepted.append(job_id)
            before = events_of(sessions, job_id)
            pending.append(when)
            writer.submit(lambda session, write=write, job_id=job_id: write(session, job_id)).result(timeout=60)
            assert not pending, f"{name}: no COMMIT met the fault"
            new = events_of(sessions, job_id)[len(before) :]
            with sessions() as session:
                assert session.get_one(Job, job_id).status == expected, name
            moved = [event.to_status for event in new if event.to_status is not None]
            assert len(moved) == len(set(moved)) and (moved[-1:] or ["running"]) == [expected], (name, moved)
            if name in ("event", "artifact"):  # These writes change no status and may be repeated.
                assert 1 <= len(new) <= 2
            if name == "checkpoint":
                assert [event.event for event in new] == ["checkpoint"]
            end(sessions, job_id)
        writer.close()
        engine.dispose()
        assert proxy.met == [when] * len(WRITES)
    history = read_history(sessions, settings.experiments_dir, accepted=accepted, limits={"lm-training": 1})
    assert check(history) == []


def running_job(settings: Settings, sessions: sessionmaker[Session], requested: str | None) -> str:
    """Create a job whose attempt 1 is running and has a checkpoint. Return its id.

    If `requested` is not None, this signal is sent to the job.
    """
    with sessions.begin() as session:
        job_id = queue.enqueue_job(session, NewJob(type=JobType.LM_TRAINING, payload={"config": {}})).id
    with sessions.begin() as session:
        claimed = queue.claim_job(session, "training", "owner", settings)
        assert claimed is not None and claimed.id == job_id
    for status in (JobStatus.STARTING, JobStatus.RUNNING):
        with sessions.begin() as session:
            queue.transition(session, job_id, 1, status)
    with sessions.begin() as session:
        queue.register_checkpoint(session, job_id, 1, name="step-000000001", step=1, sha256="1" * 64)
    if requested is not None:
        with sessions.begin() as session:
            request_signal(session, job_id, Signal(requested))
    return job_id


def events_of(sessions: sessionmaker[Session], job_id: str) -> list[JobEvent]:
    """Return the events of the job, oldest first."""
    with sessions() as session:
        return list(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)))


def end(sessions: sessionmaker[Session], job_id: str) -> None:
    """Cancel the job if it has not ended: first as the api, then as the owner of the job."""
    with sessions.begin() as session:
        if session.get_one(Job, job_id).finished_at is None:
            request_cancel(session, job_id)
    with sessions.begin() as session:
        if session.get_one(Job, job_id).finished_at is None:
            queue.release_job(session, job_id, 1)
