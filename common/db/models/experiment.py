"""Table `experiments`: the results of jobs. The files of an experiment are in `<experiments_dir>/<id>/`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base, one_of
from tidal_client.vocabulary import ExperimentType


class Experiment(Base):
    """One experiment. All attempts of a job use the same one; a job with `resumeFrom` creates a new one."""

    __tablename__ = "experiments"
    __table_args__ = (
        CheckConstraint(one_of("type", ExperimentType), name="type"),
        Index("ix_experiments_listing", text("created_at DESC"), text("id DESC")),
        Index("ix_experiments_tags", "tags", postgresql_using="gin"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """`YYYYMMDD-HHMMSS-commit_<short>-config_<10 hex digits>`; for controllers the last part is `rl_<10 hex
    digits>`."""
    type: Mapped[str]
    name: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    notes: Mapped[str | None]
    config: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    source_experiment_id: Mapped[str | None]
    """The experiment that `source_checkpoint` belongs to; no foreign key, because that experiment may be deleted."""
    source_checkpoint: Mapped[str | None]
    imported: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
