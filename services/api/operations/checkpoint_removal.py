"""Deleting one checkpoint: its row first, in a transaction that refuses while a live job needs it, then its files.

When the process dies in between, asking again removes the files. Leaves out: whole experiments
(`experiment_changes`).
"""

from __future__ import annotations

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore
from common.db import Checkpoint, Job
from common.errors import ConflictError, NotFoundError
from services.api.operations.experiments import find_experiment

_REFERENCES = ("checkpoint", "rl_checkpoint", "initial_checkpoint")
"""Names in a payload that hold a checkpoint's reference."""


def delete_checkpoint_row(session: Session, store: ArtifactStore, experiment_id: str, name: str) -> None:
    """Its row; the caller commits and removes the files. Its job then goes on from the newest that is left.

    NotFoundError; ConflictError while a job that is its experiment's own, or that begins from it, lives.
    """
    find_experiment(session, experiment_id)
    if name not in {file.name for file in store.checkpoint_files(experiment_id)}:
        raise NotFoundError(f"{name!r} is no checkpoint of experiment {experiment_id!r}; use a name of the list")
    reference = f"{experiment_id}/{name}"
    _refuse_while_used(session, experiment_id, reference)
    mine = Checkpoint.experiment_id == experiment_id
    session.execute(delete(Checkpoint).where(mine, Checkpoint.name == name))
    newest = session.execute(
        select(Checkpoint.name, Checkpoint.step)
        .where(mine, Checkpoint.kind == "training")
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
        .limit(1)
    ).first()
    left = {
        "checkpoint_ref": f"{experiment_id}/{newest.name}" if newest else None,
        "checkpoint_step": newest.step if newest else None,
    }
    session.execute(update(Job).where(Job.checkpoint_ref == reference).values(**left))


def _refuse_while_used(session: Session, experiment_id: str, reference: str) -> None:
    needs = [Job.payload[name].as_string() == reference for name in _REFERENCES]
    query = (
        select(Job.id, Job.status)
        .where(
            Job.finished_at.is_(None),
            or_(
                Job.experiment_id == experiment_id,
                Job.checkpoint_ref == reference,
                *needs,
            ),
        )
        .order_by(Job.id)
        .with_for_update()
    )
    live = session.execute(query).first()
    if live is not None:
        raise ConflictError(
            f"job {live.id} is {live.status} and needs these files; cancel it or wait for its end", code="job_is_live"
        )
