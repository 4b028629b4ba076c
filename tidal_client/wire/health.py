"""Replies of the health endpoints."""

from __future__ import annotations

from .base import Reply


class Alive(Reply):
    """The reply to a liveness check."""

    status: str = "ok"
    version: str


class Part(Reply):
    """A dependency of the api, and whether it works."""

    ok: bool
    detail: str
    """`ok`, or what is wrong and how to fix it."""
    required: bool = True
    """Whether the api needs this part to serve requests."""


class Ready(Reply):
    """Whether the api can serve requests."""

    ready: bool
    parts: dict[str, Part]
    """Required: `database`, `schema`, `redis`, `store`. Optional: `disk` (ok if its reserve is free), `sweeps`."""
