"""The audit log."""

from __future__ import annotations

from typing import Any

from .base import Reply, UtcTime


class AuditEntryReply(Reply):
    """One change that a request made."""

    id: int
    at: UtcTime
    actor: str
    """Name of the token; `administrator` for TIDAL_AUTH_TOKEN."""
    token_id: str | None = None
    address: str | None = None
    """Address of the client; behind a proxy, the address that a trusted proxy reported."""
    request_id: str | None = None
    """The `X-Request-ID` of the request, which the log of the api contains, too."""
    action: str
    """What was done, such as `job.submit` or `report.delete`."""
    target: str
    """Id or name of the changed object."""
    before: dict[str, Any] | None = None
    """The affected values before the change; null for a creation."""
    after: dict[str, Any] | None = None
    """The affected values after the change; null for a deletion."""


class AuditList(Reply):
    """A page of the audit log, newest entry first."""

    entries: list[AuditEntryReply]
    next_cursor: str | None = None
