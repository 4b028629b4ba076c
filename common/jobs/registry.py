"""Registers the files that an attempt has written: checkpoints, final artifacts, and the result of an analysis job.

Every write is fenced by the attempt. A file is complete before its row is inserted, and is deleted before its row is.
The files are written and pruned by `common.checkpoint`.
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
    """Register `name` (`step-000000123`, below checkpoints/) as the newest checkpoint and return its reference.

    The reference is `<experiment id>/checkpoints/<name>`. A checkpoint that is already registered is left unchanged. An
    attempt also registers the checkpoint from which it resumes, because the previous attempt may have died before
    registering it. A new highest step restores the retry budget for infrastructure faults. Raises LeaseLostError.
    """
    job = require_ownership(session, job_id, attempt)
    path = name if "/" in name else f"{CHECKPOINT_FOLDER}/{name}"
    reference = f"{job.experiment_id}/{path}"
    registered = select(Checkpoint.sha256).where(Checkpoint.experiment_id == job.experiment_id, Checkpoint.name == path)
    if job.checkpoint_ref == reference and session.scalar(registered) == sha256:
        return reference
    _upsert(session, job, path, "training", step, sha256, size_bytes)
    fields: dict[str, object] = {"checkpoint_ref": reference, "updated_at": func.now()}
    if job.checkpoint_step is None or step > job.checkpoint_step:
        fields |= {"checkpoint_step": step, "infra_restarts": 0}
    session.execute(update(Job).where(Job.id == job.id, Job.attempt == attempt).values(**fields))
    session.refresh(job)
    add_event(session, job, "checkpoint", actor="worker", details={"name": path, "step": step, "sha256": sha256})
    return reference


def keep_checkpoints(session: Session, job_id: str, attempt: int, *, names: Collection[str]) -> None:
    """Delete the rows of all training checkpoints of the experiment except `names`; their files were pruned.

    The checkpoint in `checkpoint_ref` always keeps its row. Raises LeaseLostError.
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
    """Delete the rows of the checkpoints `names`, because training diverged; later attempts resume from `newest`.

    If `newest` is None, no checkpoint of the experiment can be resumed from. The next attempt then begins with the
    initial checkpoint of the job, if it has one. Raises LeaseLostError.
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
    """Register a final file. An unknown `kind` is stored as `other`. Raises LeaseLostError."""
    job = require_ownership(session, job_id, attempt)
    _upsert(session, job, name, kind if kind in ARTIFACT_KINDS else "other", step, sha256, size_bytes)
    add_event(session, job, "artifact", actor="worker", details={"name": name, "kind": kind})


def register_analysis(session: Session, job_id: str, attempt: int, *, result: Mapping[str, Any]) -> None:
    """Store the result of an analysis job, or replace that of an earlier attempt. Raises LeaseLostError."""
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


ARTIFACT_KINDS = frozenset({"model", "policy", "result", "other"})


def _upsert(
    session: Session, job: Job, name: str, kind: str, step: int | None, sha256: str | None, size_bytes: int | None
) -> None:
    """Insert or replace a row. A later attempt may write the same step again and replace the file."""
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
