"""Replies of the health endpoints."""

from __future__ import annotations

from .base import Reply


class Alive(Reply):
    """The reply of a process that is alive."""

    status: str = "ok"
    version: str


class Part(Reply):
    """One part that the api depends on."""

    ok: bool
    detail: str
    """`ok`, or what is wrong and how to fix it."""
    required: bool = True
    """Whether the api can serve requests only if this part is ok."""


class Ready(Reply):
    """Whether the api can serve requests."""

    ready: bool
    parts: dict[str, Part]
    """Required: `database`, `schema`, `redis`, `store`. Optional: `disk` (ok if its reserve is free), `sweeps`."""
