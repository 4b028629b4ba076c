"""Table `outbox`: messages that must be sent to Redis after a commit.

A message is inserted in the transaction whose change it reports, published by the relay, and deleted an hour later.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base, one_of

OUTBOX_KINDS = ("doorbell", "job-update", "wish")


class Outbox(Base):
    """One message: a notification for the workers of `queue`, or a message about `job_id`."""

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint(one_of("kind", OUTBOX_KINDS), name="kind"),
        CheckConstraint("(kind = 'doorbell') = (queue IS NOT NULL)", name="queue"),
        CheckConstraint("(kind = 'doorbell') = (job_id IS NULL)", name="job_id"),
        Index("ix_outbox_unpublished", "id", postgresql_where=text("published_at IS NULL")),
        Index("ix_outbox_published_at", "published_at", postgresql_where=text("published_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str]
    """One of OUTBOX_KINDS: a notification for the workers of a queue, a job-update, or a changed desired state."""
    queue: Mapped[str | None]
    job_id: Mapped[str | None]
    """No foreign key, because the message is kept when its job is deleted."""
    payload: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]
