"""`/api/audit`: the audit log, for tokens with the scope admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime
from sqlalchemy.orm import Session

from services.api.auth import Admin
from services.api.context import session_of
from services.api.operations import audit
from services.api.paging import Limit, decode_number
from tidal_client.wire.audit import AuditList

router = APIRouter(prefix="/api/audit", tags=["tokens"])
Text = Annotated[str | None, Query(max_length=300, pattern=r"^[^\x00]*$")]


@router.get("", summary="Show the audit log", dependencies=[Admin])
def list_entries(
    session: Annotated[Session, Depends(session_of, scope="function")],
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=30, description="`nextCursor` of the previous page.")] = None,
    actor: Text = None,
    action: Annotated[
        str | None,
        Query(max_length=40, pattern=r"^[a-z.]*$", description="An action such as `job.submit`, or only `job`."),
    ] = None,
    target: Text = None,
    since: Annotated[AwareDatetime | None, Query(description="Only entries from this time on.")] = None,
) -> AuditList:
    """Returns who changed what, from where, with the values before and after the change, newest first.

    Each change that a request made has one entry, written in the transaction of the change. Entries are kept for
    `TIDAL_AUDIT_DAYS` days and cannot be changed.
    """
    return audit.audit_page(
        session,
        limit=limit,
        before=decode_number(cursor),
        actor=actor,
        action=action,
        target=target,
        since=since,
    )
