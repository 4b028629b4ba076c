"""Deletes the logs and metric archives of experiments whose job ended long ago (TIDAL_RETENTION_DAYS).

Models, checkpoints, configurations, results, analyses and all rows are kept. Nothing is deleted from imported
experiments, or from experiments that an unfinished job writes to or reads from. Each deletion is recorded as an event
of the job. The health process calls `delete_expired_archives`; `tidal db retention` calls it once, or only lists what
it would delete. This module deletes neither checkpoints of a running training (its `checkpoint` settings limit them)
nor streams in Redis (they expire).
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

FOLDERS = ("logs", "metrics", "tensorboard_logs")
"""Names of the folders to delete in the folder of an experiment."""
DAY_SECONDS = 86_400.0

log = get_logger(__name__)


@dataclass(frozen=True)
class ExpiredArchive:
    """An experiment whose logs and metrics are older than the retention time."""

    experiment_id: str
    job_id: str
    finished_at: datetime
    size_bytes: int
    """Size of the folders to delete, in bytes."""


def find_expired_archives(session: Session, store: ArtifactStore, days: float) -> list[ExpiredArchive]:
    """Return the experiments with folders to delete, in the order in which their jobs ended.

    Raises StorageError when there is no store, for example because a volume is not mounted.
    """
    if not store.root.is_dir():
        raise StorageError(f"there is no artifact store at {store.root}; is its volume mounted?")
    rows = session.execute(_ended_jobs(days).order_by(Job.finished_at, Job.id)).all()
    return [
        ExpiredArchive(job.experiment_id, job.id, job.finished_at, _size(store, job.experiment_id))
        for (job,) in rows
        if job.finished_at and any(folder.is_dir() for folder in _folders(store, job.experiment_id))
    ]


def delete_expired_archives(engine: Engine, store: ArtifactStore, days: float) -> list[ExpiredArchive]:
    """Delete the expired folders, one experiment per transaction; return the experiments whose folders were deleted.

    If several calls run at the same time, each experiment is handled by only one of them. A folder is renamed in the
    transaction that writes the event, and its files are deleted after the commit.
    """
    sessions = session_factory(engine)
    with sessions() as session:
        candidates = find_expired_archives(session, store, days)
    deleted = []
    for candidate in candidates:
        with sessions.begin() as session:
            # The conditions are checked again under the lock, because the job may have been deleted, or another job may
            # read from the experiment now.
            locked = _ended_jobs(days).where(Job.id == candidate.job_id).with_for_update(of=Job, skip_locked=True)
            job = session.scalar(locked.execution_options(populate_existing=True))
            if job is None:
                continue
            renamed = [store.detach(candidate.experiment_id, name) for name in FOLDERS]
            if not any(renamed):
                continue
            details = {"bytes": candidate.size_bytes, "folders": list(FOLDERS), "days": days}
            add_event(session, job, "archive_deleted", actor="system", details=details)
        for path in renamed:
            store.discard(path)
        log.info(
            "logs and metrics deleted by retention",
            experiment=candidate.experiment_id,
            bytes=candidate.size_bytes,
        )
        deleted.append(candidate)
    return deleted


def _ended_jobs(days: float) -> Select[Job]:
    """Select the jobs that ended more than `days` ago and whose experiment no unfinished job reads from."""
    reader, reader_experiment = aliased(Job), aliased(Experiment)
    reading_jobs = (
        select(reader.id)
        .join(reader_experiment, reader_experiment.id == reader.experiment_id)
        .where(
            reader.status.not_in(TERMINAL),
            or_(reader_experiment.source_experiment_id == Job.experiment_id, reader.parent_id == Job.id),
        )
    )
    return select(Job).where(
        Job.status.in_(TERMINAL), Job.finished_at < now_minus(days * DAY_SECONDS), ~exists(reading_jobs.correlate(Job))
    )


def _folders(store: ArtifactStore, experiment_id: str) -> list[Path]:
    return [store.path(experiment_id, name) for name in FOLDERS]


def _size(store: ArtifactStore, experiment_id: str) -> int:
    return sum(size_of(folder) for folder in _folders(store, experiment_id))
