"""Replies of the health endpoints."""

from __future__ import annotations

from .base import Reply


class Alive(Reply):
    """The reply to a liveness check."""

    status: str = "ok"
    version: str


class Part(Reply):
    """A part that the api depends on, with its state."""

    ok: bool
    detail: str
    """`ok`, or what is wrong and how to fix it."""
    required: bool = True
    """Whether the api cannot serve requests without this part."""


class Ready(Reply):
    """Whether the api can serve requests."""

    ready: bool
    parts: dict[str, Part]
    """Required parts: `database`, `schema`, `redis` and `store`. Optional parts: `disk`, which is ok if its reserve is
    free, and `sweeps`, which is ok if the reaper runs regularly."""
