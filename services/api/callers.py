"""The caller of a request: the holder of a valid token, and what this token allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from common.access import ADMINISTRATOR, Actor
from tidal_client.vocabulary import INCLUDED_SCOPES, TokenScope


@dataclass(frozen=True)
class Caller(Actor):
    """The holder of a valid token, with the address and the id of the request."""

    scopes: frozenset[TokenScope] = frozenset()
    """All scopes that the token has, including those that its scopes include."""
    expires_at: datetime | None = None

    def in_request(self, address: str | None, request_id: str | None) -> Caller:
        """Return this caller with the address and the id of a request."""
        return replace(self, address=address, request_id=request_id)

    def may(self, scope: TokenScope) -> bool:
        """Return whether the token has `scope`."""
        return scope in self.scopes


def all_scopes(scopes: Iterable[str]) -> frozenset[TokenScope]:
    """Return `scopes` and all scopes that they include."""
    return frozenset().union(*(INCLUDED_SCOPES[TokenScope(scope)] for scope in scopes))


ADMINISTRATOR_CALLER = Caller(ADMINISTRATOR, scopes=frozenset(TokenScope))
"""The holder of TIDAL_AUTH_TOKEN."""
