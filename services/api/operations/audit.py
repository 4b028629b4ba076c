"""Reads the audit log. `common.audit` writes it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.db import AuditEntry
from tidal_client.wire.audit import AuditEntryReply, AuditList


def audit_page(
    session: Session,
    *,
    limit: int,
    before: int,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    since: datetime | None = None,
) -> AuditList:
    """Return the entries that match all given filters, newest first; `before` is an id, 0 for the first page.

    `action` is a whole action such as `job.submit`, or the kind of object before the dot.
    """
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit + 1)
    if before:
        query = query.where(AuditEntry.id < before)
    if actor is not None:
        query = query.where(AuditEntry.actor == actor)
    if action is not None:
        query = query.where((AuditEntry.action == action) | AuditEntry.action.startswith(f"{action}.", autoescape=True))
    if target is not None:
        query = query.where(AuditEntry.target == target)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    rows = session.scalars(query).all()
    page = rows[:limit]
    return AuditList(
        entries=[AuditEntryReply.model_validate(row) for row in page],
        next_cursor=str(page[-1].id) if len(rows) > limit else None,
    )
