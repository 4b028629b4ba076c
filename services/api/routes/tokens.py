"""`/api/tokens`: creates, lists and revokes named tokens. All operations need the scope admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from services.api.auth import Admin, ByAdmin, ContextDep
from services.api.context import session_of
from services.api.operations import tokens
from services.api.paging import Cursor, Limit
from services.api.schemas.problems import problem_responses
from services.api.schemas.tokens import TokenRequest
from tidal_client.wire.access_token import AccessTokenCreated, AccessTokenList, AccessTokenReply

router = APIRouter(prefix="/api/tokens", tags=["tokens"])
SessionDep = Annotated[Session, Depends(session_of, scope="function")]


@router.get("", summary="List tokens", dependencies=[Admin])
def list_tokens(
    session: SessionDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    valid: Annotated[
        bool | None, Query(description="true: only valid tokens; false: only revoked and expired ones.")
    ] = None,
) -> AccessTokenList:
    """Returns the named tokens without their secrets, newest first. The administrator's token is not listed."""
    return tokens.tokens_page(session, limit=limit, cursor=cursor, valid=valid)


@router.post("", summary="Create a token", status_code=201, responses=problem_responses(409))
def create(body: TokenRequest, context: ContextDep, caller: ByAdmin, response: Response) -> AccessTokenCreated:
    """Creates a token and returns it; only this reply contains the secret.

    Answers 409 `name_taken` if a valid token has this name.
    """
    with context.sessions.begin() as session:
        created = tokens.create_token(session, body, caller)
    response.headers["Location"] = f"{context.settings.root_path.rstrip('/')}/api/tokens/{created.id}"
    response.headers["Cache-Control"] = "no-store"
    return created


@router.get("/{token_id}", summary="Show a token", dependencies=[Admin], responses=problem_responses(404))
def get(token_id: str, session: SessionDep) -> AccessTokenReply:
    """Returns a token without its secret."""
    return tokens.get_token(session, token_id)


@router.delete("/{token_id}", summary="Revoke a token", status_code=204, responses=problem_responses(404))
def revoke(token_id: str, context: ContextDep, caller: ByAdmin) -> None:
    """Revokes a token for ever. Revoking it again changes nothing.

    Every api process refuses the token within a second.
    """
    with context.sessions.begin() as session:
        tokens.revoke_token(session, token_id, caller)
