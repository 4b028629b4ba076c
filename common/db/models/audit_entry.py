"""Table `audit_log`: one row per change that a request made, written in the transaction of the change.

A trigger, created by the migrations, refuses every UPDATE, and every DELETE except that of the retention.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from common.db.base import Base


class AuditEntry(Base):
    """One change: who, what, from where, and the values before and after it."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_target", "target", "id"),
        Index("ix_audit_log_actor", "actor", "id"),
        Index("ix_audit_log_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    """Name of the token that made the change."""
    token_id: Mapped[str | None]
    """Id of a named token; no foreign key, because the entry must not depend on other rows."""
    address: Mapped[str | None]
    """Address of the client, as far as trusted proxies report it."""
    request_id: Mapped[str | None]
    """The `X-Request-ID` of the request, which also appears in the log of the api."""
    action: Mapped[str]
    """What was done, such as `job.submit` (`common.audit`)."""
    target: Mapped[str]
    """Id or name of the changed object."""
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
