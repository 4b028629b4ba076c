"""Deletes the database row of a checkpoint, unless a job that has not ended needs the checkpoint.

The caller then deletes the files. If the process dies after the row is deleted but before the files are deleted, a
repeated request deletes the files. `experiment_changes` deletes whole experiments.
"""

from __future__ import annotations

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore
from common.audit import record_change
from common.db import Checkpoint, Job
from common.errors import ConflictError, NotFoundError
from services.api.callers import Caller
from services.api.operations.experiments import find_experiment
from services.api.operations.ownership import require_own_experiment

_REFERENCES = ("checkpoint", "rl_checkpoint", "initial_checkpoint")
"""Fields of a job's payload that contain the reference of a checkpoint."""


def delete_checkpoint_row(
    session: Session, store: ArtifactStore, experiment_id: str, name: str, caller: Caller
) -> None:
    """Delete the row of a checkpoint; the caller commits and deletes the files.

    A job that would have resumed from this checkpoint resumes from the newest remaining one. Raises NotFoundError,
    ForbiddenError if another token created the experiment, and ConflictError until all jobs of the experiment, and all
    jobs that use the checkpoint, have ended.
    """
    find_experiment(session, experiment_id)
    if name not in {file.name for file in store.checkpoint_files(experiment_id)}:
        raise NotFoundError(
            f"{name!r} is not a checkpoint of experiment {experiment_id!r}; use a name from the list of its checkpoints"
        )
    require_own_experiment(session, caller, experiment_id)
    reference = f"{experiment_id}/{name}"
    _refuse_while_used(session, experiment_id, reference)
    mine = Checkpoint.experiment_id == experiment_id
    record_change(session, caller, "checkpoint.delete", reference, before={"experiment": experiment_id, "name": name})
    session.execute(delete(Checkpoint).where(mine, Checkpoint.name == name))
    newest = session.execute(
        select(Checkpoint.name, Checkpoint.step)
        .where(mine, Checkpoint.kind == "training")
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
        .limit(1)
    ).first()
    new_values = {
        "checkpoint_ref": f"{experiment_id}/{newest.name}" if newest else None,
        "checkpoint_step": newest.step if newest else None,
    }
    session.execute(update(Job).where(Job.checkpoint_ref == reference).values(**new_values))


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
            f"job {live.id} is {live.status} and needs these files; cancel it or wait until it ends", code="job_is_live"
        )
