"""Who asks, and what the token of the request is good for."""

from __future__ import annotations

from .base import Reply


class Session(Reply):
    """What the token of the request is good for."""

    name: str | None = None
    """Whose token it is; null without a valid one."""
    scopes: list[str]
    """What may be done: `read`, `submit`, `admin`. Open reads need no token."""
    reads_open: bool
    """Whether reading needs no token."""
    version: str
    """Of Tidal."""
