"""Authentication and authorisation: bearer tokens with scopes.

The only token is that of the administrator (`TIDAL_AUTH_TOKEN`), which is compared in constant time. Reads, generation
and analyses need no token unless `TIDAL_REQUIRE_AUTH_FOR_READS` is set. An endpoint without authentication ignores a
wrong token, because some clients always send one. An endpoint that needs a token logs a wrong one. The more wrong
tokens an address sends, the later its requests are answered (`common.access.rejections`). The FastAPI dependencies are
`reader`, `submitter` and `anyone`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from common.config import Settings
from common.errors import ConfigError, ForbiddenError, RateLimitedError, UnauthorizedError
from common.logging import get_logger
from services.api.context import Context, context_of

log = get_logger(__name__)


class Scope(StrEnum):
    """The scopes of a token, from the smallest to the largest; each scope includes all smaller ones."""

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
        """Return whether the token includes `scope`."""
        return scope in _INCLUDED[self.scope]


def is_loopback(host: str) -> bool:
    """Return whether a bind address can be reached only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def administrator_token(settings: Settings) -> tuple[str, bool]:
    """Return the token that clients must send, and True if this function generated the token.

    The caller prints a generated token.

    Raises ConfigError when `TIDAL_AUTH_TOKEN` is shorter than 8 characters, or is not set although other machines can
    reach the service.
    """
    given = settings.auth_token.get_secret_value().strip() if settings.auth_token is not None else ""
    if given:
        if len(given) < 8:
            raise ConfigError("TIDAL_AUTH_TOKEN is shorter than 8 characters; `make env` writes a longer one")
        return given, False
    if not is_loopback(settings.host):
        raise ConfigError(
            f"TIDAL_AUTH_TOKEN is not set and the api would listen on {settings.host}, reachable from other machines; "
            "set a token (`make env` writes one) or bind to 127.0.0.1"
        )
    return secrets.token_urlsafe(24), True


def authenticate(presented: str, expected: str) -> Caller | None:
    """Return the caller that owns the token, or None.

    The comparison of hashes takes the same time for tokens of any length and content.
    """
    if hmac.compare_digest(_digest(presented), _digest(expected)):
        return Caller("administrator", Scope.ADMIN)
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="The administrator's token (`TIDAL_AUTH_TOKEN`). Requests that change something need it.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
ContextDep = Annotated[Context, Depends(context_of)]


async def anyone(request: Request, context: ContextDep, credentials: Credentials) -> Caller | None:
    """Return the caller for a valid token, otherwise None.

    `GET /api/session`, with which clients check their token, uses this dependency. Therefore a wrong token is logged
    and may be answered late, as at an endpoint that needs a token.
    """
    caller = _caller(context, credentials)
    if caller is None and "authorization" in request.headers:
        await _slow_down(request, context)
    return caller


async def submitter(request: Request, context: ContextDep, credentials: Credentials) -> Caller:
    """Return the caller of an endpoint that changes something, who needs a token with the scope `submit`."""
    return await _require(Scope.SUBMIT, request, context, credentials)


async def reader(request: Request, context: ContextDep, credentials: Credentials) -> Caller | None:
    """Return the caller of an endpoint that reads, generates or analyses.

    The endpoint needs a token only if `TIDAL_REQUIRE_AUTH_FOR_READS` is set.
    """
    if context.settings.require_auth_for_reads:
        return await _require(Scope.READ, request, context, credentials)
    return _caller(context, credentials)


def _caller(context: Context, credentials: HTTPAuthorizationCredentials | None) -> Caller | None:
    return authenticate(credentials.credentials, context.token) if credentials else None


async def _require(
    scope: Scope, request: Request, context: Context, credentials: HTTPAuthorizationCredentials | None
) -> Caller:
    caller = _caller(context, credentials)
    if caller is None:
        if "authorization" not in request.headers:
            raise UnauthorizedError("a token is needed: send the header `Authorization: Bearer <token>`")
        await _slow_down(request, context)
        raise UnauthorizedError("the token is wrong or has expired")
    if not caller.may(scope):
        raise ForbiddenError(f"the token of {caller.name} lacks the scope {scope}")
    return caller


async def _slow_down(request: Request, context: Context) -> None:
    """Log the rejection without the token and delay the reply when the address has sent many wrong tokens.

    Raises RateLimitedError when the address has sent too many.
    """
    rejection = context.rejections.count(request.client.host if request.client else "unknown")
    context.metrics.rejected_tokens.inc()
    if rejection.worth_a_line:
        # Log the path pattern of the route, because the path itself may contain private text.
        path = getattr(request.scope.get("route"), "path", "")
        log.warning(
            "a token was rejected",
            address=rejection.address,
            method=request.method,
            path=path,
            rejected_in_this_minute=rejection.count,
        )
    if rejection.delay_seconds is None:
        raise RateLimitedError(
            "this address has sent too many wrong tokens; a valid token is accepted at any time",
            retry_after=rejection.retry_after,
            code="too_many_wrong_tokens",
        )
    if rejection.delay_seconds:
        with context.rejections.waiting(rejection):
            await asyncio.sleep(rejection.delay_seconds)


Reader = Depends(reader)
Submitter = Depends(submitter)
