"""Table `jobs`: what each job has to do, and its state. The pending rows of this table are the queue.

Statuses are plain text. The CHECKs enforce the rules about a single row. A trigger, created by the migrations, enforces
the rules about changes: which transitions of the status exist, which kind of process may make each of them, and that
only a claim increases `attempt`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base, one_of
from tidal_client.vocabulary import ACTIVE, LEASED, RESUMABLE, TERMINAL, DesiredState, JobStatus, JobType


class Job(Base):
    """One job: its type and payload, its status, its lease, its progress, and how it ended."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("type", JobType), name="type"),
        CheckConstraint(one_of("status", JobStatus), name="status"),
        CheckConstraint(one_of("desired_state", DesiredState), name="desired_state"),
        CheckConstraint("priority BETWEEN -100 AND 100", name="priority"),
        CheckConstraint("gpus BETWEEN 0 AND 64", name="gpus"),
        CheckConstraint("attempt >= 0 AND infra_restarts >= 0 AND user_failures >= 0", name="counters"),
        CheckConstraint(
            "(lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL AND attempt > 0)"
            f" = ({one_of('status', LEASED)})"
            " AND (lease_owner IS NULL) = (lease_expires_at IS NULL)",
            name="lease",
        ),
        CheckConstraint(
            "(status_before_stale IS NOT NULL AND stale_at IS NOT NULL) = (status = 'stale')"
            " AND (status_before_stale IS NULL) = (stale_at IS NULL)",
            name="stale",
        ),
        CheckConstraint(
            f"status_before_stale IS NULL OR {one_of('status_before_stale', ACTIVE)}", name="status_before_stale"
        ),
        CheckConstraint(f"(finished_at IS NOT NULL) = ({one_of('status', TERMINAL)})", name="finished"),
        CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="failed_has_code"),
        CheckConstraint(
            "status <> 'paused' OR (desired_state = 'pause' AND checkpoint_ref IS NOT NULL)", name="paused"
        ),
        CheckConstraint("status <> 'completed' OR desired_state <> 'stop'", name="completed_not_stopped"),
        CheckConstraint("status NOT IN ('stopping', 'cancelled') OR desired_state = 'stop'", name="stopped_by_wish"),
        CheckConstraint("NOT cancel_requested OR desired_state = 'stop'", name="cancel"),
        CheckConstraint("checkpoint_step IS NULL OR checkpoint_ref IS NOT NULL", name="checkpoint"),
        CheckConstraint(f"desired_state IN ('run', 'stop') OR {one_of('type', RESUMABLE)}", name="resumable"),
        CheckConstraint("(started_at IS NOT NULL) = (attempt > 0)", name="started"),
        CheckConstraint("(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name="idempotency"),
        Index(
            "ix_jobs_claim",
            "queue",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_jobs_leased",
            "type",
            "lease_expires_at",
            postgresql_where=text(one_of("status", LEASED)),
        ),
        Index("ix_jobs_listing", text("created_at DESC"), text("id DESC")),
        Index("ix_jobs_status_listing", "status", text("created_at DESC"), text("id DESC")),
        UniqueConstraint("experiment_id"),
        Index(
            "ix_jobs_completed",
            "type",
            text("finished_at DESC"),
            postgresql_where=text("status = 'completed'"),
        ),
        Index("ix_jobs_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        Index(
            "uq_jobs_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """The identifier: `job_` followed by 16 random characters."""
    type: Mapped[str]
    queue: Mapped[str]
    payload: Mapped[dict[str, Any]]
    """The validated payload with all defaults filled in (`common.jobs.payloads`)."""
    name: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    """The priority, from -100 to 100; jobs with a higher priority are claimed first."""
    gpus: Mapped[int] = mapped_column(server_default=text("1"))
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    token_id: Mapped[str | None]
    """The named token that submitted the job; NULL for the administrator's, and for rows from before revision 0008. No
    foreign key, because a restored row may name a token that does not exist."""
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    """The job that this job resumes."""

    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    moved_by: Mapped[str | None]
    """The kind of process that changes the status: api, claimer, owner or reaper. Each UPDATE of the status sets this
    column.

    The trigger checks this column against the table of transitions and then sets it to NULL."""
    desired_state: Mapped[str] = mapped_column(server_default=text("'run'"))
    desired_at: Mapped[datetime | None]
    """Time at which the current desired state was set. The grace period of a stop begins at this time."""
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    """True after a cancel request: if the trainer has not stopped at the end of the grace period, it gets SIGKILL at
    once."""
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of attempts so far, which is also the fencing token of the current attempt."""
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    status_before_stale: Mapped[str | None]
    stale_at: Mapped[datetime | None]
    infra_restarts: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of attempts that failed because of the infrastructure since the last new checkpoint."""
    user_failures: Mapped[int] = mapped_column(server_default=text("0"))
    checkpoint_ref: Mapped[str | None]
    """The newest registered checkpoint, `<experiment id>/checkpoints/<name>`."""
    checkpoint_step: Mapped[int | None]
    """The highest step of the job's registered checkpoints."""
    not_before: Mapped[datetime | None]

    progress_step: Mapped[int | None]
    progress_total_steps: Mapped[int | None]
    progress_eta_seconds: Mapped[float | None]
    progress_phase: Mapped[str | None]
    progress_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]

    prediction: Mapped[dict[str, Any] | None]
    """Parameters, memory and duration that were predicted at submission (`tidal_client.wire.prediction`); lm-training
    only."""
    measurement: Mapped[dict[str, Any] | None]
    """Duration, speed and memory of the attempt that completed the job, measured by its trainer; lm-training only."""

    idempotency_key: Mapped[str | None]
    idempotency_hash: Mapped[str | None]
    """SHA-256 of the request body. This column and `idempotency_key` are cleared after 24 h."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    """Time of the first claim."""
    finished_at: Mapped[datetime | None]
