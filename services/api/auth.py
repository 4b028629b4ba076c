"""Who may do what: bearer tokens with scopes.

One token exists so far, the administrator's (`TIDAL_AUTH_TOKEN`), compared in constant time. Reads are open unless
`TIDAL_REQUIRE_AUTH_FOR_READS` is set; on an open endpoint a bad token is ignored, because some clients always send
one. Dependencies: `reader`, `submitter`, `anyone`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from common.config import Settings
from common.errors import ConfigError, ForbiddenError, UnauthorizedError
from services.api.context import Context, context_of


class Scope(StrEnum):
    """What a token allows; each includes the ones before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


_INCLUDED = {
    Scope.READ: {Scope.READ},
    Scope.SUBMIT: {Scope.READ, Scope.SUBMIT},
    Scope.ADMIN: {Scope.READ, Scope.SUBMIT, Scope.ADMIN},
}


@dataclass(frozen=True)
class Caller:
    """The holder of a valid token."""

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        """Whether the token includes `scope`."""
        return scope in _INCLUDED[self.scope]


def is_loopback(host: str) -> bool:
    """Whether a bind address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def administrator_token(settings: Settings) -> tuple[str, bool]:
    """The token to ask for, and whether it was made here (then the caller prints it).

    Raises ConfigError when there is none and the service would be reachable from other machines, or when it is too
    short to keep anybody out.
    """
    given = settings.auth_token.get_secret_value().strip() if settings.auth_token is not None else ""
    if given:
        if len(given) < 8:
            raise ConfigError("TIDAL_AUTH_TOKEN is shorter than 8 characters; make one with `make env`")
        return given, False
    if not is_loopback(settings.host):
        raise ConfigError(
            f"TIDAL_AUTH_TOKEN is not set and the api would listen on {settings.host}, reachable from other machines; "
            "set a token (`make env` writes one) or bind to 127.0.0.1"
        )
    return secrets.token_urlsafe(24), True


def authenticate(presented: str, expected: str) -> Caller | None:
    """The caller a token belongs to, or None. Hashing first makes the time independent of length and content."""
    if hmac.compare_digest(_digest(presented), _digest(expected)):
        return Caller("administrator", Scope.ADMIN)
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="The administrator's token (`TIDAL_AUTH_TOKEN`). Needed for everything that changes something.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
ContextDep = Annotated[Context, Depends(context_of)]


async def anyone(context: ContextDep, credentials: Credentials) -> Caller | None:
    """An open endpoint: the caller if the token is valid, None otherwise."""
    return authenticate(credentials.credentials, context.token) if credentials else None


async def submitter(context: ContextDep, credentials: Credentials) -> Caller:
    """An endpoint that changes something."""
    return _require(Scope.SUBMIT, context, credentials)


async def reader(context: ContextDep, credentials: Credentials) -> Caller | None:
    """A read: open, unless the operator closed reads."""
    if context.settings.require_auth_for_reads:
        return _require(Scope.READ, context, credentials)
    return authenticate(credentials.credentials, context.token) if credentials else None


def _require(scope: Scope, context: Context, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    if credentials is None:
        raise UnauthorizedError("a token is needed: send the header `Authorization: Bearer <token>`")
    caller = authenticate(credentials.credentials, context.token)
    if caller is None:
        raise UnauthorizedError("the token is wrong or has expired")
    if not caller.may(scope):
        raise ForbiddenError(f"the token of {caller.name} lacks the scope {scope}")
    return caller


Reader = Depends(reader)
Submitter = Depends(submitter)
