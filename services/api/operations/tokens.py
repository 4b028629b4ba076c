"""Creates, lists and revokes named tokens. `services.api.token_register` checks the tokens of requests."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_nothing
from sqlalchemy.orm import Session

from common.access import Actor, make_token, token_hash
from common.audit import record_change
from common.db import AccessToken
from common.errors import ConflictError, InvalidInputError, NotFoundError
from services.api.paging import newest_page
from services.api.schemas.tokens import TokenRequest
from tidal_client.vocabulary import TOKEN_ID, TokenScope, new_id, utc_text
from tidal_client.wire.access_token import AccessTokenCreated, AccessTokenList, AccessTokenReply
from tidal_client.wire.base import extend_reply


def tokens_page(session: Session, *, limit: int, cursor: str | None, valid: bool | None) -> AccessTokenList:
    """Return a page of tokens, newest first; with `valid`, only those that are valid, or only those that are not."""
    query = select(AccessToken, AccessToken.is_valid())
    if valid is not None:
        query = query.where(AccessToken.is_valid() if valid else ~AccessToken.is_valid())
    page, following = newest_page(session, query, AccessToken.created_at, AccessToken.id, limit=limit, cursor=cursor)
    return AccessTokenList(tokens=[_reply(row, valid=accepted) for row, accepted in page], next_cursor=following)


def get_token(session: Session, token_id: str) -> AccessTokenReply:
    """Return a token without its secret. Raises NotFoundError."""
    found = session.execute(select(AccessToken, AccessToken.is_valid()).where(AccessToken.id == token_id)).one_or_none()
    if found is None:
        raise NotFoundError(f"there is no token {token_id!r}")
    return _reply(found[0], valid=found[1])


def create_token(session: Session, body: TokenRequest, actor: Actor) -> AccessTokenCreated:
    """Store a new token and return it with its secret.

    Raises InvalidInputError when it would have expired already, and ConflictError when a valid token has its name.
    """
    if body.expires_at is not None and body.expires_at <= session.scalars(select(func.clock_timestamp())).one():
        raise InvalidInputError.at("body.expiresAt", "the time has passed already; choose a later one")
    # An expired token does not keep its name from a new one.
    same_name = update(AccessToken).where(
        AccessToken.name == body.name, AccessToken.revoked_at.is_(None), ~AccessToken.is_valid()
    )
    session.execute(same_name.values(revoked_at=AccessToken.expires_at))
    token = make_token()
    values = {
        "id": new_id(TOKEN_ID),
        "name": body.name,
        "hash": token_hash(token),
        "scopes": [scope.value for scope in TokenScope if scope in body.scopes],
        "created_by": actor.name,
        "expires_at": body.expires_at,
    }
    statement = insert_or_nothing(AccessToken).values(**values).on_conflict_do_nothing().returning(AccessToken)
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise ConflictError(
            f"a token named {body.name!r} exists already; choose another name, or revoke that token first",
            code="name_taken",
            errors=[{"location": "body.name", "message": "a valid token has this name"}],
        )
    after = {"name": row.name, "scopes": row.scopes, "expiresAt": row.expires_at and utc_text(row.expires_at)}
    record_change(session, actor, "token.create", row.id, after=after)
    return extend_reply(AccessTokenCreated, _reply(row, valid=True), token=token)


def revoke_token(session: Session, token_id: str, actor: Actor) -> None:
    """Revoke a token. Revoking it again changes nothing. Raises NotFoundError."""
    row = session.get(AccessToken, token_id, with_for_update=True)
    if row is None:
        raise NotFoundError(f"there is no token {token_id!r}")
    if row.revoked_at is not None:
        return
    session.execute(update(AccessToken).where(AccessToken.id == token_id).values(revoked_at=func.clock_timestamp()))
    record_change(session, actor, "token.revoke", token_id, before={"name": row.name, "scopes": row.scopes})


def _reply(row: AccessToken, *, valid: bool) -> AccessTokenReply:
    fields = {column.name: getattr(row, column.name) for column in AccessToken.__table__.columns}
    return AccessTokenReply.model_validate({**fields, "valid": valid})
