"""Authentication and authorisation: bearer tokens with scopes.

The administrator's token (`TIDAL_AUTH_TOKEN`) is compared in constant time; `token_register` looks up named tokens.
Each route names the scope that it needs with one of the FastAPI dependencies `Reader`, `Generator`, `Submitter` and
`Admin`; the OpenAPI document and docs/access.md show this scope. Reads, generation and analyses need no token unless
`TIDAL_REQUIRE_AUTH_FOR_READS` is set. Such an open endpoint treats a client with a wrong, expired or revoked token, or
with one that lacks the scope, like a client without a token, because some clients always send one. An endpoint that
needs a token logs a wrong one. The more wrong tokens an address sends, the later its requests are answered
(`common.access.rejections`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from common.config import Settings
from common.errors import ConfigError, ForbiddenError, RateLimitedError, UnauthorizedError
from common.logging import get_logger
from services.api.callers import ADMINISTRATOR_CALLER, Caller
from services.api.context import Context, context_of
from services.api.token_watch import STATE
from tidal_client.vocabulary import TokenScope

log = get_logger(__name__)


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


def is_administrator(presented: str, expected: str) -> bool:
    """Return whether a token is the administrator's.

    The comparison of hashes takes the same time for tokens of any length and content.
    """
    return hmac.compare_digest(_digest(presented), _digest(expected))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="The administrator's token (`TIDAL_AUTH_TOKEN`), or a named token (`POST /api/tokens`) with the scope "
    "that the operation needs. Requests that change something need a token.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
ContextDep = Annotated[Context, Depends(context_of)]


async def anyone(request: Request, context: ContextDep, credentials: Credentials) -> Caller | None:
    """Return the caller for a valid token, otherwise None.

    `GET /api/session`, with which clients check their token, uses this dependency. Therefore a wrong token is logged
    and may be answered late, as at an endpoint that needs a token.
    """
    caller = await _identify(request, context, credentials)
    if caller is None and "authorization" in request.headers:
        await _slow_down(request, context)
    return caller


async def authorize(
    request: Request, context: ContextDep, credentials: Credentials, needed: SecurityScopes
) -> Caller | None:
    """Return the caller of an endpoint that needs the scope `needed`.

    Returns None if the endpoint is open and the client has no valid token with this scope. Raises UnauthorizedError,
    ForbiddenError, and UnavailableError if a named token cannot be checked.
    """
    scope = TokenScope(needed.scopes[-1])
    caller = await _identify(request, context, credentials)
    if is_open(scope, context.settings):
        return caller if caller is not None and caller.may(scope) else None
    if caller is None:
        if "authorization" not in request.headers:
            raise UnauthorizedError("a token is needed: send the header `Authorization: Bearer <token>`")
        await _slow_down(request, context)
        raise UnauthorizedError("the token is wrong, revoked or has expired")
    if not caller.may(scope):
        raise ForbiddenError(f"the token {caller.name!r} lacks the scope {scope}")
    return caller


def is_open(scope: TokenScope, settings: Settings) -> bool:
    """Return whether endpoints that need `scope` are open to clients without a token."""
    return scope in (TokenScope.READ, TokenScope.GENERATE) and not settings.require_auth_for_reads


async def _identify(
    request: Request, context: Context, credentials: HTTPAuthorizationCredentials | None
) -> Caller | None:
    if credentials is None:
        return None
    caller: Caller | None = ADMINISTRATOR_CALLER
    if not is_administrator(credentials.credentials, context.token):
        caller = await context.tokens.find(credentials.credentials)
        if caller is not None:
            context.tokens.hold(caller, request.scope["state"][STATE])
    address = request.client.host if request.client is not None else None
    return caller.in_request(address, request.state.request_id) if caller is not None else None


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


Reader = Security(authorize, scopes=[TokenScope.READ.value])
Submitter = Security(authorize, scopes=[TokenScope.SUBMIT.value])
Admin = Security(authorize, scopes=[TokenScope.ADMIN.value])
GeneratorOnly = Security(authorize, scopes=[TokenScope.GENERATE.value])
Generator = Annotated[Caller | None, GeneratorOnly]
"""The caller of an endpoint that generates text; None if it is open and no token with the scope was sent."""


async def _known(caller: Annotated[Caller | None, Submitter]) -> Caller:
    assert caller is not None  # endpoints for the scope submit are never open
    return caller


async def _known_administrator(caller: Annotated[Caller | None, Admin]) -> Caller:
    assert caller is not None  # endpoints for the scope admin are never open
    return caller


By = Annotated[Caller, Depends(_known)]
"""The caller of an endpoint that changes something."""
ByAdmin = Annotated[Caller, Depends(_known_administrator)]
"""The caller of an endpoint that needs the scope admin."""
