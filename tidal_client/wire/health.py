"""What the health endpoints say."""

from __future__ import annotations

from .base import Reply


class Alive(Reply):
    """The process answers."""

    status: str = "ok"
    version: str


class Part(Reply):
    """One thing the api needs."""

    ok: bool
    detail: str
    """`ok`, or what is wrong and what to do."""
    required: bool = True
    """Whether requests cannot be served without it."""


class Ready(Reply):
    """Whether requests can be served."""

    ready: bool
    parts: dict[str, Part]
    """Required: `database`, `schema`, `redis`, `store`. Not required: `disk` (ok if its reserve is free), `sweeps`."""
