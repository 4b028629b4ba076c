"""Named tokens: lists, details, and the reply that contains a new token."""

from __future__ import annotations

from typing import Annotated

from ..vocabulary import TokenScope
from .base import OpenEnum, Reply, UtcTime

KnownScope = Annotated[TokenScope, OpenEnum()]


class AccessTokenReply(Reply):
    """A named token, without the secret."""

    id: str
    name: str
    scopes: list[KnownScope]
    """`read`, `generate`, `submit` (includes read) and `admin` (includes all)."""
    created_at: UtcTime
    created_by: str
    """Name of the token that created this one; `administrator` for TIDAL_AUTH_TOKEN."""
    expires_at: UtcTime | None = None
    """Time from which the token is refused; null for a token that does not expire."""
    last_used_at: UtcTime | None = None
    """Time of the last request with the token, to the minute; null if there was none."""
    revoked_at: UtcTime | None = None
    valid: bool
    """Whether the token is accepted: it is neither revoked nor expired."""


class AccessTokenCreated(AccessTokenReply):
    """A new token, with the secret."""

    token: str
    """The token to send as `Authorization: Bearer …`. It is shown only in this reply."""


class AccessTokenList(Reply):
    """A page of tokens, newest first."""

    tokens: list[AccessTokenReply]
    next_cursor: str | None = None
