"""Writes entries of the audit log and deletes old ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from common.access import Actor
from common.db import AuditEntry

Action = Literal[
    "job.submit",
    "job.signal",
    "job.cancel",
    "experiment.change",
    "experiment.delete",
    "checkpoint.delete",
    "dataset.upload",
    "dataset.delete",
    "analysis.save",
    "analysis.delete",
    "report.create",
    "report.change",
    "report.delete",
    "token.create",
    "token.revoke",
]
ACTIONS: Final[tuple[str, ...]] = get_args(Action)
MAX_TEXT_CHARACTERS = 500
"""Longer texts, such as notes, are cut in an entry."""
DAY_SECONDS = 86_400.0


def record_change(
    session: Session,
    actor: Actor,
    action: Action,
    target: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write one entry; the caller commits it together with the change.

    `before` and `after` contain the values that the change affects, as JSON: None if there is nothing before a creation
    or after a deletion.
    """
    session.execute(
        insert(AuditEntry).values(
            actor=actor.name,
            token_id=actor.token_id,
            address=actor.address,
            request_id=actor.request_id,
            action=action,
            target=target,
            before=None if before is None else _cut(before),
            after=None if after is None else _cut(after),
        )
    )


def delete_old_entries(session: Session, days: float) -> int:
    """Delete the entries that are older than `days`; return their number. The caller commits."""
    session.execute(select(func.set_config("tidal.audit_retention", "on", True)))
    old = delete(AuditEntry).where(
        AuditEntry.at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, days * DAY_SECONDS)
    )
    count = len(session.scalars(old.returning(AuditEntry.id), execution_options={"synchronize_session": False}).all())
    session.execute(select(func.set_config("tidal.audit_retention", "", True)))
    return count


def _cut(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _cut_text(value) if isinstance(value, str) else value for name, value in values.items()}


def _cut_text(text: str) -> str:
    text = text.replace("\x00", "\ufffd")  # PostgreSQL cannot store NUL
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[:MAX_TEXT_CHARACTERS]}…"
