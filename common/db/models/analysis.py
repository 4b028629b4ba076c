"""Table `analyses`: results of trajectory analyses that a user saved or that a job computed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base, one_of
from tidal_client.vocabulary import AnalysisKind


class Analysis(Base):
    """One analysis. Structures are `json`, not `jsonb`: token texts may contain NUL, and keys keep their order."""

    __tablename__ = "analyses"
    __table_args__ = (
        CheckConstraint(one_of("kind", get_args(AnalysisKind)), name="kind"),
        Index("ix_analyses_listing", "experiment_id", text("created_at DESC"), text("id DESC")),
        Index("uq_analyses_job_id", "job_id", unique=True, postgresql_where=text("job_id IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """The identifier: `ana_` followed by 16 random characters."""
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    """The job that computed the analysis; a job has at most one analysis, even after several attempts."""
    token_id: Mapped[str | None]
    """The named token that saved the analysis; NULL for the administrator's, and for rows from before revision 0008. No
    foreign key, because a restored row may name a token that does not exist."""
    kind: Mapped[str]
    name: Mapped[str | None]
    request: Mapped[dict[str, Any]] = mapped_column(JSON())
    """The input of the analysis (checkpoints, prompts, seed, …). `result` contains the same values."""
    result: Mapped[dict[str, Any]] = mapped_column(JSON(), deferred=True, deferred_raiseload=True)
    """The complete result (`common.analysis.result`). Queries for lists of analyses do not load this column."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
