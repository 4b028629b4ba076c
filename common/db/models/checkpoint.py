"""Table `checkpoints`: checkpoints and final files that an attempt has registered for its experiment."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base, one_of
from tidal_client.vocabulary import CheckpointKind


class Checkpoint(Base):
    """A training checkpoint (kind training, resumable) or a final artifact (model, policy, result, other)."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint(one_of("kind", get_args(CheckpointKind)), name="kind"),
        CheckConstraint("kind <> 'training' OR (step IS NOT NULL AND sha256 IS NOT NULL)", name="training"),
        CheckConstraint("size_bytes IS NULL OR size_bytes >= 0", name="size_bytes"),
        UniqueConstraint("experiment_id", "name"),
        Index("ix_checkpoints_job_id", "job_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    kind: Mapped[str]
    name: Mapped[str]
    """Path below the experiment's folder, such as `checkpoints/step-000000123` or `transformer-lm_v1.0.0.pth`."""
    step: Mapped[int | None]
    sha256: Mapped[str | None]
    size_bytes: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
