"""Table `job_events`: one row per event of a job, written in the same transaction as the change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base, one_of
from tidal_client.vocabulary import TERMINAL

ACTORS = ("api", "worker", "reaper", "system")


class JobEvent(Base):
    """One event. `from_status` and `to_status` are set only if the status changed."""

    __tablename__ = "job_events"
    __table_args__ = (
        CheckConstraint(one_of("actor", ACTORS), name="actor"),
        CheckConstraint("from_status IS NULL OR to_status IS NOT NULL", name="statuses"),
        Index("ix_job_events_job_id_id", "job_id", "id"),
        Index(
            "uq_job_events_terminal",
            "job_id",
            unique=True,
            postgresql_where=text(one_of("to_status", TERMINAL)),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    event: Mapped[str]
    """The kind of event: submitted, claimed, starting, running, checkpoint, signal, stale, healed, restarted, …"""
    actor: Mapped[str]
    from_status: Mapped[str | None]
    to_status: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
