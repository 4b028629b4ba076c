"""Files an attempt has written, registered under its fencing token: checkpoints to resume from, final artifacts, and
the analysis that a job of that type makes.

The file exists, whole, before its row does, and is gone before its row is. Leaves out: writing and pruning files
(`common.checkpoint`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.db import Analysis, Checkpoint, Job
from common.jobs.changes import add_event
from common.jobs.lease import require_ownership
from tidal_client.vocabulary import ANALYSIS_ID, new_id

CHECKPOINT_FOLDER = "checkpoints"


def register_checkpoint(
    session: Session, job_id: str, attempt: int, *, name: str, step: int, sha256: str, size_bytes: int | None = None
) -> str:
    """Note that `name` (`step-000000123`, below checkpoints/) is the newest checkpoint.

    The next attempt begins with the newest sound one on disk, and tells of it when the one before died before it could.
    What is registered already is left alone. Returns its reference, `<experiment id>/checkpoints/<name>`. A step higher
    than any before gives the budget of infrastructure restarts back. Raises LeaseLostError.
    """
    job = require_ownership(session, job_id, attempt)
    path = name if "/" in name else f"{CHECKPOINT_FOLDER}/{name}"
    reference = f"{job.experiment_id}/{path}"
    known = select(Checkpoint.sha256).where(Checkpoint.experiment_id == job.experiment_id, Checkpoint.name == path)
    if job.checkpoint_ref == reference and session.scalar(known) == sha256:
        return reference
    _write(session, job, path, "training", step, sha256, size_bytes)
    fields: dict[str, object] = {"checkpoint_ref": reference, "updated_at": func.now()}
    if job.checkpoint_step is None or step > job.checkpoint_step:
        fields |= {"checkpoint_step": step, "infra_restarts": 0}
    session.execute(update(Job).where(Job.id == job.id, Job.attempt == attempt).values(**fields))
    session.refresh(job)
    add_event(session, job, "checkpoint", actor="worker", details={"name": path, "step": step, "sha256": sha256})
    return reference


def keep_checkpoints(session: Session, job_id: str, attempt: int, *, names: Collection[str]) -> None:
    """Forget the training checkpoints of the job's experiment that are not among `names`: their files are gone.

    The one that `checkpoint_ref` names is never forgotten. Raises LeaseLostError.
    """
    job = require_ownership(session, job_id, attempt)
    current = (job.checkpoint_ref or "").removeprefix(f"{job.experiment_id}/")
    session.execute(
        delete(Checkpoint).where(
            Checkpoint.experiment_id == job.experiment_id,
            Checkpoint.kind == "training",
            Checkpoint.name.not_in([*names, current]),
        )
    )


def withdraw_checkpoints(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    names: Collection[str],
    newest: str | None,
    newest_step: int | None = None,
) -> None:
    """Training diverged: forget the checkpoints `names`, and resume from `newest` of the job's experiment.

    Without `newest` nothing of the experiment can be resumed from: what is left is the checkpoint that the job itself
    was given to begin from, if any. Raises LeaseLostError.
    """
    job = require_ownership(session, job_id, attempt)
    session.execute(
        delete(Checkpoint).where(
            Checkpoint.experiment_id == job.experiment_id,
            Checkpoint.kind == "training",
            Checkpoint.name.in_(names),
        )
    )
    reference = job.payload.get("initial_checkpoint") if newest is None else f"{job.experiment_id}/{newest}"
    fields = {
        "checkpoint_ref": reference,
        "checkpoint_step": None if newest is None else newest_step,
        "updated_at": func.now(),
    }
    session.execute(update(Job).where(Job.id == job.id, Job.attempt == attempt).values(**fields))
    session.refresh(job)
    add_event(session, job, "withdrawn", actor="worker", details={"names": sorted(names), "resume_from": reference})


def register_artifact(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    name: str,
    kind: str,
    step: int | None = None,
    sha256: str | None = None,
    size_bytes: int | None = None,
) -> None:
    """Register a final file: kind model, policy, result or other. Raises LeaseLostError."""
    job = require_ownership(session, job_id, attempt)
    _write(session, job, name, kind if kind in KINDS else "other", step, sha256, size_bytes)
    add_event(session, job, "artifact", actor="worker", details={"name": name, "kind": kind})


def register_analysis(session: Session, job_id: str, attempt: int, *, result: Mapping[str, Any]) -> None:
    """Keep the result of an analysis job as the analysis of its experiment; a later attempt replaces it.

    Raises LeaseLostError.
    """
    job = require_ownership(session, job_id, attempt)
    values = {"kind": result["kind"], "request": result["request"], "result": dict(result), "name": job.name}
    statement = insert(Analysis).values(
        id=new_id(ANALYSIS_ID), experiment_id=job.experiment_id, job_id=job.id, **values
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id"],
            index_where=Analysis.job_id.is_not(None),
            set_={**values, "created_at": func.now()},
        )
    )


KINDS = frozenset({"model", "policy", "result", "other"})


def _write(
    session: Session, job: Job, name: str, kind: str, step: int | None, sha256: str | None, size_bytes: int | None
) -> None:
    """Insert or replace: a later attempt may write a step again, and its file is the one that lies there."""
    values = {
        "job_id": job.id,
        "attempt": job.attempt,
        "kind": kind,
        "step": step,
        "sha256": sha256,
        "size_bytes": size_bytes,
    }
    statement = insert(Checkpoint).values(experiment_id=job.experiment_id, name=name, **values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["experiment_id", "name"], set_={**values, "created_at": func.now()}
        )
    )
