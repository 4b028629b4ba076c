"""`/api/session`: returns what the token of a request allows. A client can check its token with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from services.api.auth import Caller, ContextDep, Scope, anyone
from tidal_client.wire.session import Session

router = APIRouter(prefix="/api/session", tags=["service"])


@router.get("", summary="Show what the token allows")
def show(request: Request, context: ContextDep, caller: Annotated[Caller | None, Depends(anyone)]) -> Session:
    """Returns the name and the scopes of the caller.

    Needs no token. For a wrong token, the reply is the same as without a token: no name, and only the scopes that all
    callers have.
    """
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
