"""`/api/session`: what the token of a request is good for, so that a client can check it without changing anything."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from services.api.auth import Caller, ContextDep, Scope, anyone
from tidal_client.wire.session import Session

router = APIRouter(prefix="/api/session", tags=["service"])


@router.get("", summary="Say who asks")
def show(request: Request, context: ContextDep, caller: Annotated[Caller | None, Depends(anyone)]) -> Session:
    """Open. A wrong token is answered like none: no name and no scopes beyond those that everybody has."""
    open_reads = not context.settings.require_auth_for_reads
    allowed = [scope.value for scope in Scope if (caller is not None and caller.may(scope))]
    if caller is None and open_reads:
        allowed = [Scope.READ.value]
    return Session(
        name=caller.name if caller is not None else None,
        scopes=allowed,
        reads_open=open_reads,
        version=request.app.version,
    )
