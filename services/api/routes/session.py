"""`/api/session`: returns what the token of a request allows. A client can check its token with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from services.api.auth import ContextDep, anyone, is_open
from services.api.callers import Caller
from tidal_client.vocabulary import TokenScope
from tidal_client.wire.session import Session

router = APIRouter(prefix="/api/session", tags=["service"])


@router.get("", summary="Show what the token allows")
def show(request: Request, context: ContextDep, caller: Annotated[Caller | None, Depends(anyone)]) -> Session:
    """Returns the name and the scopes of the caller.

    Needs no token. For a wrong, expired or revoked token, the reply is the same as without a token: no name, and only
    the scopes that all callers have.
    """
    scopes = caller.scopes if caller is not None else frozenset()
    return Session(
        name=caller.name if caller is not None else None,
        scopes=[scope.value for scope in TokenScope if scope in scopes or is_open(scope, context.settings)],
        expires_at=caller.expires_at if caller is not None else None,
        reads_open=not context.settings.require_auth_for_reads,
        version=request.app.version,
    )
