"""Retention: logs and metric archives of experiments whose job ended long ago are deleted (TIDAL_RETENTION_DAYS).

Models, checkpoints, configurations, results, analyses and every row stay; so does all of an experiment whose job has
not ended, that a live job reads from, or that was imported. Each deletion is an event of the job. The health process
calls `retain`; `tidal db retention` does it once, or only says what it would do. Leaves out: checkpoints of a running
training (its `checkpoint` settings), Redis (its streams expire).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, Select, exists, or_, select
from sqlalchemy.orm import Session, aliased

from common.artifacts import ArtifactStore
from common.db import Experiment, Job, session_factory
from common.disk import size_of
from common.errors import StorageError
from common.jobs.changes import add_event
from common.jobs.sql import now_minus
from common.logging import get_logger
from tidal_client.vocabulary import TERMINAL

FOLDERS = ("logs", "metrics")
"""What goes, below the folder of the experiment."""
DAY_SECONDS = 86_400.0

log = get_logger(__name__)


@dataclass(frozen=True)
class ExpiredArchive:
    """An experiment whose logs and metrics are kept no longer."""

    experiment_id: str
    job_id: str
    finished_at: datetime
    size_bytes: int
    """Of what goes."""


def find_expired_archives(session: Session, store: ArtifactStore, days: float) -> list[ExpiredArchive]:
    """What is to go, the longest ended first; StorageError when there is no store (a volume is not mounted)."""
    if not store.root.is_dir():
        raise StorageError(f"there is no artifact store at {store.root}")
    rows = session.execute(_ended(days).order_by(Job.finished_at, Job.id)).all()
    return [
        ExpiredArchive(job.experiment_id, job.id, job.finished_at, _size(store, job.experiment_id))
        for (job,) in rows
        if job.finished_at and any(folder.is_dir() for folder in _folders(store, job.experiment_id))
    ]


def delete_expired_archives(engine: Engine, store: ArtifactStore, days: float) -> list[ExpiredArchive]:
    """Delete what is to go, one experiment per transaction; gives what went. Several at once: each takes its own.

    The event is written with the rename that takes the files away; the bytes are freed after the commit.
    """
    sessions = session_factory(engine)
    with sessions() as session:
        candidates = find_expired_archives(session, store, days)
    gone = []
    for one in candidates:
        with sessions.begin() as session:
            # Locked and judged again: it may have been deleted, or a job may have begun to read from it.
            locked = _ended(days).where(Job.id == one.job_id).with_for_update(of=Job, skip_locked=True)
            job = session.scalar(locked.execution_options(populate_existing=True))
            if job is None:
                continue
            doomed = [store.take_away(one.experiment_id, name) for name in FOLDERS]
            if not any(doomed):
                continue
            details = {"bytes": one.size_bytes, "folders": list(FOLDERS), "days": days}
            add_event(session, job, "archive_deleted", actor="system", details=details)
        for path in doomed:
            store.discard(path)
        log.info("logs and metrics deleted by retention", experiment=one.experiment_id, bytes=one.size_bytes)
        gone.append(one)
    return gone


def _ended(days: float) -> Select[Job]:
    """Jobs that ended so long ago and whose experiment nobody reads from."""
    reader, its = aliased(Job), aliased(Experiment)
    reads = (
        select(reader.id)
        .join(its, its.id == reader.experiment_id)
        .where(
            reader.status.not_in(TERMINAL),
            or_(its.source_experiment_id == Job.experiment_id, reader.parent_id == Job.id),
        )
    )
    return select(Job).where(
        Job.status.in_(TERMINAL), Job.finished_at < now_minus(days * DAY_SECONDS), ~exists(reads.correlate(Job))
    )


def _folders(store: ArtifactStore, experiment_id: str) -> list[Path]:
    return [store.path(experiment_id, name) for name in FOLDERS]


def _size(store: ArtifactStore, experiment_id: str) -> int:
    return sum(size_of(folder) for folder in _folders(store, experiment_id))
