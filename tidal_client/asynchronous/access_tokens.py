"""Methods of `AsyncClient` for named tokens and the audit log; all need the scope admin."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..requests import segment
from ..vocabulary import utc_text
from ..wire.access_token import AccessTokenCreated, AccessTokenList, AccessTokenReply
from ..wire.audit import AuditEntryReply, AuditList
from .connection import AsyncApiConnection

PATH = "/api/tokens"


class AsyncAccessTokenCalls(AsyncApiConnection):
    """Methods of `AsyncClient` for named tokens and the audit log."""

    async def create_token(
        self, name: str, scopes: Sequence[str], *, expires_at: datetime | None = None
    ) -> AccessTokenCreated:
        """Create a token. Only the returned object contains its secret, as `token`.

        Raises ConflictError if a valid token has this name.
        """
        body: dict[str, Any] = {"name": name, "scopes": list(scopes)}
        if expires_at is not None:
            body["expiresAt"] = utc_text(expires_at)
        return await self._post(AccessTokenCreated, PATH, body)

    async def tokens(self, *, valid: bool | None = None, limit: int | None = None) -> list[AccessTokenReply]:
        """Return the newest tokens: at most `limit`, or all if it is None.

        `valid` selects the tokens that are valid, or those that are revoked or expired.
        """
        query: dict[str, Any] = {"valid": None if valid is None else str(valid).lower()}
        return await self._pages(AccessTokenList, PATH, lambda page: page.tokens, limit=limit, **query)

    async def token(self, token_id: str) -> AccessTokenReply:
        """Return a token without its secret. Raises NotFoundError."""
        return await self._get(AccessTokenReply, f"{PATH}/{segment(token_id)}")

    async def revoke_token(self, token_id: str) -> None:
        """Revoke a token; every api process refuses it within a second. Raises NotFoundError."""
        await self._request("DELETE", f"{PATH}/{segment(token_id)}", repeatable=True)

    async def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        limit: int | None = 50,
    ) -> list[AuditEntryReply]:
        """Return the newest entries of the audit log that match all filters: at most `limit`, or all if it is None.

        `action` is a whole action such as `job.submit`, or only its first part.
        """
        query: dict[str, Any] = {"actor": actor, "action": action, "target": target}
        query["since"] = None if since is None else utc_text(since)
        return await self._pages(AuditList, "/api/audit", lambda page: page.entries, limit=limit, **query)
