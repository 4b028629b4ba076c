"""The session: owner and scopes of the token in the request."""

from __future__ import annotations

from .base import Reply


class Session(Reply):
    """The owner and the scopes of the token in the request."""

    name: str | None = None
    """Name of the token's owner; null without a valid token."""
    scopes: list[str]
    """The scopes of the token; possible values are `read`, `submit` and `admin`."""
    reads_open: bool
    """Whether requests that only read need no token."""
    version: str
    """Version of Tidal."""
