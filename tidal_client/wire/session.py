"""The session: owner and scopes of the token in the request."""

from __future__ import annotations

from .base import Reply, UtcTime


class Session(Reply):
    """The owner and the scopes of the token in the request."""

    name: str | None = None
    """Name of the token's owner; null without a valid token."""
    scopes: list[str]
    """What the caller may do: the scopes of the token and those that need no token; possible values are `read`,
    `generate`, `submit` and `admin`."""
    expires_at: UtcTime | None = None
    """Time from which the token is refused; null for the administrator's token and for one that does not expire."""
    reads_open: bool
    """Whether requests that read, generate or analyse need no token."""
    version: str
    """Version of Tidal."""
