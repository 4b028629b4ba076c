"""Table `reports`: Markdown texts about experiments, with charts as fenced blocks (`common.reports`)."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base, one_of
from tidal_client.vocabulary import ReportPattern


class Report(Base):
    """One report. It refers to experiments without a foreign key, so it stays unchanged when they are deleted."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint(one_of("pattern", get_args(ReportPattern)), name="pattern"),
        CheckConstraint("version > 0", name="version"),
        Index("ix_reports_listing", text("created_at DESC"), text("id DESC")),
        Index("ix_reports_experiment_ids", "experiment_ids", postgresql_using="gin"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """The identifier: `rep_` followed by 16 random characters."""
    title: Mapped[str]
    markdown: Mapped[str] = mapped_column(deferred=True, deferred_raiseload=True)
    """The text. Queries for lists of reports do not load this column."""
    pattern: Mapped[str | None]
    """The template that created the report; NULL if it was written by hand."""
    token_id: Mapped[str | None]
    """The named token that created the report; NULL for the administrator's, and for rows from before revision 0008. No
    foreign key, because a restored row may name a token that does not exist."""
    experiment_ids: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    """The experiments for which the report was created, and the experiments that its charts show."""
    version: Mapped[int] = mapped_column(server_default=text("1"))
    """The version, which increases with every change. A change names the version that it is based on, and is refused if
    the report has a newer version."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
